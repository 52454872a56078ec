//! Notifications without end, of queues with requests and without, for neighbours that measure what they lose.

use crate::attack::{Field, write_request};
use bulkhead_guest_tests::device;
use bulkhead_guest_tests::ring::ENTRIES;
use rt::{println, timer};
use testkit::{Failure, Outcome, ensure, report};

/// Notifications of one queue before the next has its turn.
const TURN: u32 = 500;
/// How many of them there are for each request.
const FOR_REQUEST: u32 = 10;
/// What a storm has at least, in a second.
const NOTIFICATIONS_MIN: u64 = 5_000;

pub(crate) fn run(field: &mut Field, seconds: u64) {
    report::test("15: seconds of notifications of every queue are served", || {
        let end = timer::now() + timer::ticks(seconds * 1_000_000);
        let (mut notifications, mut requests) = (0_u64, 0_u64);
        while timer::now() < end {
            turn(field, &mut notifications, &mut requests)?;
        }
        println!("notifications={notifications} requests={requests}");
        ensure!(notifications >= seconds * NOTIFICATIONS_MIN && requests > 0, "that is no storm");
        Ok(())
    });
}

fn turn(field: &mut Field, notifications: &mut u64, requests: &mut u64) -> Outcome {
    let [ring, _] = &mut field.rings;
    for &device in &field.devices {
        for queue in (0..device.queues()).filter(|queue| !device.receives_in(*queue)) {
            ring.clear();
            ensure!(device.negotiate(device::VERSION_1)?, "{device} does not accept what it must");
            ensure!(device.start_queue(queue.into(), ENTRIES.into(), ring.places())?, "{device} does not take a queue");
            device.go()?;
            let mut offered = 0;
            for count in 0..TURN {
                // Before the last has come back there is nothing new, and the queue is empty.
                if count % FOR_REQUEST == 0 && ring.used_index() == offered {
                    write_request(ring, device, queue, 0);
                    ring.offer(0);
                    offered += 1;
                    *requests += 1;
                }
                device.notify(queue.into())?;
                *notifications += 1;
            }
            if device.needs_reset()? {
                return Err(Failure::new(format_args!("{device} needs a reset")));
            }
            device.reset()?;
        }
    }
    Ok(())
}
