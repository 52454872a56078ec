//! The program for the guest. `io-bench KEY=VALUE… WORK=AMOUNT…` does each work in turn and prints a line for each;
//! `io-bench serve PORT` serves until it is told to stop.

#![forbid(unsafe_code)]

use io_bench::{
    options::{self, Command, Order, Work},
    report::Report,
    server::{self, Server},
    {block, network},
};
use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
    process::ExitCode,
};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            println!("bench FAILED: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    match options::parse(std::env::args().skip(1))? {
        Command::Serve { port } => {
            let server = Server::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port));
            server.and_then(|server| server.run()).map_err(|error| format!("port {port} cannot be served: {error}"))
        }
        Command::Measure { disks, server, orders, stops_server } => {
            let mut disks = disks.iter().cycle();
            for order in orders {
                let measured = match order.work {
                    Work::Block(access) => {
                        let disk = disks.next().ok_or_else(|| format!("`{}` needs disk=FILE", order.name))?;
                        block::measure(disk, access, order.amount)
                    }
                    Work::Network(exchange) => {
                        let server = server.ok_or_else(|| format!("`{}` needs server=ADDRESS:PORT", order.name))?;
                        network::measure(server, exchange, order.amount)
                    }
                };
                show(&order, measured)?;
            }
            if let Some(server) = server.filter(|_| stops_server) {
                server::stop(server).map_err(|error| format!("the server cannot be stopped: {error}"))?;
            }
            Ok(())
        }
    }
}

fn show(order: &Order, measured: io::Result<Report>) -> Result<(), String> {
    let report = measured.map_err(|error| format!("`{}` cannot be done: {error}", order.name))?;
    println!("{}", report.line(&format!("{}{}", order.prefix, order.name)));
    Ok(())
}
