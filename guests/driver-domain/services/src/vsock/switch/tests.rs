//! Clients that ask, answer, send and vanish: alpha may speak to beta, and beta to gamma.

use super::super::HEADER_SIZE;
use super::*;

const ALPHA: usize = 0;
const BETA: usize = 1;
const GAMMA: usize = 2;
const CIDS: [u64; 3] = [3, 4, 5];

const REQUEST: u16 = 1;
const RESPONSE: u16 = 2;
const RESET: u16 = 3;
const SHUTDOWN: u16 = 4;
const DATA: u16 = 5;
const CREDIT_UPDATE: u16 = 6;

/// Ticks a second.
const FREQUENCY: u64 = 1000;

fn switch() -> Switch {
    let mut switch = Switch::new(FREQUENCY);
    assert_eq!(switch.add(3, [4], None), Some(ALPHA));
    assert_eq!(switch.add(4, [3, 5], None), Some(BETA));
    assert_eq!(switch.add(5, [4], None), Some(GAMMA));
    (ALPHA..=GAMMA).for_each(|port| switch.observe(port, Some(1)));
    switch
}

/// A packet from port `source` of `from` to port `destination` of `to`.
fn packet(from: usize, source: u32, to: usize, destination: u32, operation: u16) -> Header {
    Header {
        source_cid: CIDS[from],
        destination_cid: CIDS[to],
        source_port: source,
        destination_port: destination,
        kind: STREAM,
        operation,
        ..Header::default()
    }
}

/// Sends a packet on its way, and has it delivered if it may.
fn send(switch: &mut Switch, from: usize, header: &Header) -> Decision {
    let decision = switch.decide(from, header, header.length);
    if let Decision::Deliver(to) = decision {
        switch.delivered(from, to, header);
    }
    decision
}

/// A switch with a connection from port 1000 of alpha to port 80 of beta.
fn connected() -> Switch {
    let mut switch = switch();
    assert_eq!(send(&mut switch, ALPHA, &packet(ALPHA, 1000, BETA, 80, REQUEST)), Decision::Deliver(BETA));
    assert_eq!(send(&mut switch, BETA, &packet(BETA, 80, ALPHA, 1000, RESPONSE)), Decision::Deliver(ALPHA));
    switch
}

/// The resets that clients have to get, all of them.
fn owed(switch: &mut Switch) -> std::vec::Vec<(usize, Header)> {
    core::iter::from_fn(|| {
        let (to, header) = switch.owed_reset(|_| false)?;
        switch.reset_sent(&header);
        Some((to, header))
    })
    .collect()
}

#[test]
fn a_connection_carries_both_ways_until_it_is_reset() {
    let mut switch = connected();
    for operation in [DATA, CREDIT_UPDATE, SHUTDOWN, DATA] {
        let there = packet(ALPHA, 1000, BETA, 80, operation);
        let back = packet(BETA, 80, ALPHA, 1000, operation);
        assert_eq!(send(&mut switch, ALPHA, &there), Decision::Deliver(BETA));
        assert_eq!(send(&mut switch, BETA, &back), Decision::Deliver(ALPHA));
    }
    let end = packet(BETA, 80, ALPHA, 1000, RESET);
    assert_eq!(send(&mut switch, BETA, &end), Decision::Deliver(ALPHA));
    let late = packet(ALPHA, 1000, BETA, 80, DATA);
    assert_eq!(send(&mut switch, ALPHA, &late), Decision::Reply(late.refusal()));
    assert_eq!(send(&mut switch, BETA, &end), Decision::Drop, "a reset is not answered by one");
}

#[test]
fn a_pair_that_is_not_allowed_is_refused_in_both_directions() {
    let mut switch = switch();
    for (from, to) in [(ALPHA, GAMMA), (GAMMA, ALPHA), (ALPHA, ALPHA)] {
        let request = packet(from, 1000, to, 80, REQUEST);
        assert_eq!(send(&mut switch, from, &request), Decision::Reply(request.refusal()), "{from} {to}");
    }
}

#[test]
fn nobody_is_the_host_or_anybody_or_has_a_long_cid() {
    let mut switch = switch();
    for destination_cid in [0, 1, 2, 6, 0xffff_ffff, 1 << 32 | 4, u64::MAX] {
        let request = Header { destination_cid, ..packet(ALPHA, 1000, BETA, 80, REQUEST) };
        assert_eq!(send(&mut switch, ALPHA, &request), Decision::Reply(request.refusal()), "{destination_cid}");
    }
}

#[test]
fn a_client_has_its_own_cid_and_no_other() {
    let mut switch = connected();
    for source_cid in [0, 2, 4, 5, 1 << 32 | 3, u64::MAX] {
        for operation in 0..9 {
            let forged = Header { source_cid, ..packet(ALPHA, 1000, BETA, 80, operation) };
            assert_eq!(send(&mut switch, ALPHA, &forged), Decision::Drop, "{source_cid} {operation}");
        }
    }
    assert_eq!(switch.counters(ALPHA).dropped, 6 * 9);
    // Gamma cannot end what alpha and beta have.
    let forged = packet(ALPHA, 1000, BETA, 80, RESET);
    assert_eq!(send(&mut switch, GAMMA, &forged), Decision::Drop);
    assert_eq!(send(&mut switch, ALPHA, &packet(ALPHA, 1000, BETA, 80, DATA)), Decision::Deliver(BETA));
}

#[test]
fn only_streams_were_offered() {
    let mut switch = switch();
    for kind in [0, 2, u16::MAX] {
        let request = Header { kind, ..packet(ALPHA, 1000, BETA, 80, REQUEST) };
        assert_eq!(send(&mut switch, ALPHA, &request), Decision::Reply(request.refusal()), "{kind}");
    }
}

#[test]
fn operations_that_there_are_not_change_nothing() {
    let mut switch = connected();
    for operation in [0, 8, u16::MAX] {
        assert_eq!(send(&mut switch, ALPHA, &packet(ALPHA, 1000, BETA, 80, operation)), Decision::Drop);
    }
    assert_eq!(send(&mut switch, ALPHA, &packet(ALPHA, 1000, BETA, 80, DATA)), Decision::Deliver(BETA));
}

#[test]
fn nothing_but_a_request_makes_a_connection() {
    let mut switch = switch();
    for operation in [RESPONSE, SHUTDOWN, DATA, CREDIT_UPDATE, 7] {
        let header = packet(ALPHA, 1000, BETA, 80, operation);
        assert_eq!(send(&mut switch, ALPHA, &header), Decision::Reply(header.refusal()), "{operation}");
    }
    assert_eq!(send(&mut switch, ALPHA, &packet(ALPHA, 1000, BETA, 80, RESET)), Decision::Drop);
}

#[test]
fn a_packet_that_is_shorter_than_it_says_ends_its_stream_at_both_ends() {
    let mut switch = connected();
    let short = Header { length: 100, ..packet(ALPHA, 1000, BETA, 80, DATA) };
    assert_eq!(switch.decide(ALPHA, &short, 99), Decision::Reply(short.refusal()));
    assert_eq!(owed(&mut switch), [(BETA, Header::reset((3, 1000), (4, 80)))]);
    let back = packet(BETA, 80, ALPHA, 1000, DATA);
    assert_eq!(send(&mut switch, BETA, &back), Decision::Reply(back.refusal()));
}

#[test]
fn a_client_that_starts_anew_ends_its_connections_at_the_other_end() {
    for (gone, left) in [(ALPHA, BETA), (BETA, ALPHA)] {
        let mut switch = connected();
        switch.observe(gone, None);
        let ports = |client| if client == ALPHA { 1000 } else { 80 };
        let reset = Header::reset((CIDS[gone], ports(gone)), (CIDS[left], ports(left)));
        assert!(!switch.owes_event(gone), "a new driver has no connections");
        // What the other end still sends is of no use to anybody.
        let late = packet(left, ports(left), gone, ports(gone), DATA);
        assert_eq!(send(&mut switch, left, &late), Decision::Drop);
        switch.observe(gone, Some(2));
        assert_eq!(owed(&mut switch), [(left, reset)]);
        assert_eq!(send(&mut switch, left, &late), Decision::Reply(late.refusal()));
    }
}

#[test]
fn a_new_connection_with_the_ports_of_an_old_one_comes_after_its_end() {
    let mut switch = connected();
    switch.observe(ALPHA, Some(2));
    let request = packet(ALPHA, 1000, BETA, 80, REQUEST);
    assert_eq!(send(&mut switch, ALPHA, &request), Decision::Wait(BETA));
    assert_eq!(owed(&mut switch).len(), 1);
    assert_eq!(send(&mut switch, ALPHA, &request), Decision::Deliver(BETA));
}

#[test]
fn when_both_ends_start_anew_nobody_has_to_hear_of_it() {
    let mut switch = connected();
    switch.observe(ALPHA, None);
    switch.observe(BETA, None);
    assert_eq!(owed(&mut switch), []);
    let mut switch = connected();
    switch.observe(BETA, Some(2));
    switch.observe(ALPHA, Some(2));
    assert_eq!(owed(&mut switch), []);
}

#[test]
fn a_client_that_was_there_before_the_switch_hears_that_its_connections_are_gone() {
    let mut switch = Switch::new(FREQUENCY);
    switch.add(3, [4], Some(7));
    switch.add(4, [3], None);
    assert!(switch.owes_event(ALPHA) && !switch.owes_event(BETA));
    switch.observe(ALPHA, Some(7));
    switch.observe(BETA, Some(1));
    assert!(switch.owes_event(ALPHA) && !switch.owes_event(BETA));
    let old = packet(ALPHA, 1000, BETA, 80, DATA);
    assert_eq!(send(&mut switch, ALPHA, &old), Decision::Drop, "no byte of an old stream passes");
    switch.event_sent(ALPHA, 5);
    assert!(!switch.owes_event(ALPHA));
    switch.observe_event(ALPHA, true, 5);
    switch.observe_event(ALPHA, true, 5 + FREQUENCY);
    assert_eq!(send(&mut switch, ALPHA, &old), Decision::Reply(old.refusal()), "it has heard, and asks again");
    assert_eq!(send(&mut switch, ALPHA, &packet(ALPHA, 1000, BETA, 80, REQUEST)), Decision::Deliver(BETA));
}

#[test]
fn an_event_and_packets_in_another_queue_do_not_overtake_each_other() {
    const TENTH: u64 = FREQUENCY / 10;
    // When the event was found to be taken, when one looks, and whether the client has then acted on it.
    for (taken, passed, is_acted_on) in [
        (Some(0), 0, false),
        (Some(0), TENTH - 1, false),
        (Some(0), TENTH, true),
        (Some(4 * TENTH), 4 * TENTH, false),
        (Some(4 * TENTH), 5 * TENTH - 1, false),
        (Some(4 * TENTH), 5 * TENTH, true),
        (None, TENTH, false),
        (None, FREQUENCY - 1, false),
        (None, FREQUENCY, true),
    ] {
        let mut switch = Switch::new(FREQUENCY);
        switch.add(3, [4], None);
        switch.add(4, [3], Some(7));
        switch.observe(ALPHA, Some(1));
        switch.event_sent(BETA, 50);
        if let Some(taken) = taken {
            switch.observe_event(BETA, true, 50 + taken);
        }
        switch.observe_event(BETA, taken.is_some(), 50 + passed);
        assert_eq!(switch.awaits_event(BETA), !is_acted_on);
        // An event would end the new connection at one end; so there is none yet, and who asks hears so, either way.
        for (from, to) in [(ALPHA, BETA), (BETA, ALPHA)] {
            let mut switch = switch.clone();
            let request = packet(from, 1000, to, 80, REQUEST);
            let expected = if is_acted_on { Decision::Deliver(to) } else { Decision::Reply(request.refusal()) };
            assert_eq!(send(&mut switch, from, &request), expected);
        }
        // A reset packet for an old one would pass for an orderly end.
        for operation in [DATA, SHUTDOWN, RESPONSE] {
            let old = packet(BETA, 1000, ALPHA, 80, operation);
            let expected = if is_acted_on { Decision::Reply(old.refusal()) } else { Decision::Drop };
            assert_eq!(send(&mut switch.clone(), BETA, &old), expected);
        }
        // The other client awaits none.
        let unknown = packet(ALPHA, 1000, BETA, 80, DATA);
        assert_eq!(send(&mut switch, ALPHA, &unknown), Decision::Reply(unknown.refusal()));
    }
}

#[test]
fn a_new_driver_needs_no_event() {
    let mut switch = Switch::new(FREQUENCY);
    switch.add(3, [4], Some(7));
    switch.event_sent(ALPHA, 5);
    switch.observe(ALPHA, Some(8));
    assert!(!switch.awaits_event(ALPHA));
}

#[test]
fn nobody_connects_to_a_client_without_a_driver() {
    let mut switch = switch();
    switch.observe(BETA, None);
    let request = packet(ALPHA, 1000, BETA, 80, REQUEST);
    assert_eq!(send(&mut switch, ALPHA, &request), Decision::Reply(request.refusal()));
}

#[test]
fn a_client_that_takes_nothing_holds_nobody_up_for_long() {
    let mut switch = connected();
    let data = packet(ALPHA, 1000, BETA, 80, DATA);
    let gamma = packet(GAMMA, 7, BETA, 90, REQUEST);
    assert_eq!(send(&mut switch, GAMMA, &gamma), Decision::Deliver(BETA));
    assert!(switch.wait(BETA, 7, 10) && switch.is_waiting());
    assert!(switch.wait(BETA, 7, 10 + 2 * FREQUENCY - 1));
    assert_eq!(switch.decide(ALPHA, &data, 0), Decision::Deliver(BETA));
    assert!(!switch.wait(BETA, 7, 10 + 2 * FREQUENCY));
    assert!(!switch.is_waiting(), "nobody waits for it any more");
    // Alpha and gamma hear of it, and so does beta, when it listens.
    assert_eq!(switch.decide(ALPHA, &data, 0), Decision::Drop);
    assert_eq!(owed(&mut switch).iter().map(|(to, _)| *to).collect::<std::vec::Vec<_>>(), [ALPHA, GAMMA]);
    assert!(switch.owes_event(BETA));
    assert_eq!(switch.decide(ALPHA, &data, 0), Decision::Reply(data.refusal()));
    let request = packet(ALPHA, 1001, BETA, 80, REQUEST);
    assert_eq!(send(&mut switch, ALPHA, &request), Decision::Reply(request.refusal()));
    assert!(!switch.wait(BETA, 7, 11 + 2 * FREQUENCY));
    switch.listens(BETA);
    assert_eq!(send(&mut switch, ALPHA, &request), Decision::Reply(request.refusal()), "the event would end it");
    switch.event_sent(BETA, 12 + 2 * FREQUENCY);
    switch.observe_event(BETA, true, 12 + 2 * FREQUENCY);
    switch.observe_event(BETA, true, 12 + 3 * FREQUENCY);
    assert_eq!(send(&mut switch, ALPHA, &request), Decision::Deliver(BETA));
}

#[test]
fn a_client_that_is_half_done_with_its_window_is_blocked_no_more() {
    let mut switch = connected();
    for second in 0..10 {
        assert!(switch.wait(BETA, 7, second * FREQUENCY));
        assert!(switch.is_blocked(BETA));
        switch.listens(BETA);
        assert!(!switch.is_blocked(BETA));
    }
    assert_eq!(send(&mut switch, ALPHA, &packet(ALPHA, 1000, BETA, 80, DATA)), Decision::Deliver(BETA));
}

#[test]
fn a_client_whose_window_is_always_full_is_deaf_only_if_it_takes_too_little() {
    const STEP: u64 = FREQUENCY / 10;
    // Packets that it takes in a tenth of a second.
    for (rate, is_deaf) in [(0, true), (1, true), (3, true), (4, false), (500, false)] {
        let mut switch = connected();
        let taken = |step: u64| u32::MAX.wrapping_add(step as u32 * rate);
        let is_waited_for = (0..100).all(|step| switch.wait(BETA, taken(step), step * STEP));
        assert_eq!((is_waited_for, switch.is_deaf(BETA)), (!is_deaf, is_deaf), "{rate}");
        let data = packet(ALPHA, 1000, BETA, 80, DATA);
        assert_eq!(send(&mut switch, ALPHA, &data) == Decision::Deliver(BETA), !is_deaf, "{rate}");
    }
}

#[test]
fn a_busy_client_hears_of_ends_where_it_has_a_slot() {
    let mut switch = connected();
    switch.observe(BETA, None);
    assert!(switch.wait(ALPHA, 0, 0));
    assert_eq!(switch.owed_reset(|_| false), None);
    assert_eq!(switch.owed_reset(|port| port == ALPHA).map(|(to, _)| to), Some(ALPHA));
}

#[test]
fn a_reset_for_a_client_without_room_lets_others_go_first() {
    let mut switch = connected();
    let request = packet(BETA, 9, GAMMA, 80, REQUEST);
    assert_eq!(send(&mut switch, BETA, &request), Decision::Deliver(GAMMA));
    switch.observe(BETA, None);
    assert!(switch.wait(ALPHA, 0, 0));
    assert_eq!(owed(&mut switch).iter().map(|(to, _)| *to).collect::<std::vec::Vec<_>>(), [GAMMA]);
    switch.listens(ALPHA);
    assert_eq!(owed(&mut switch).len(), 1);
}

#[test]
fn a_reset_waits_for_nobody() {
    for first in [REQUEST, DATA] {
        let mut switch = switch();
        assert_eq!(send(&mut switch, ALPHA, &packet(ALPHA, 1000, BETA, 81, REQUEST)), Decision::Deliver(BETA));
        // Beta has two packets of alpha's to refuse, and alpha has no room for either.
        assert_eq!(send(&mut switch, ALPHA, &packet(ALPHA, 1000, BETA, 81, first)), Decision::Deliver(BETA));
        let refusal = packet(BETA, 81, ALPHA, 1000, RESET);
        assert_eq!(switch.decide(BETA, &refusal, 0), Decision::Deliver(ALPHA));
        assert_eq!(switch.no_room(BETA, ALPHA, &refusal, 0, 0), NoRoom::Done);
        assert_eq!(switch.decide(BETA, &refusal, 0), Decision::Drop, "alpha hears of it anyway");
        // Nothing but a new connection with these ports waits.
        let data = packet(BETA, 81, ALPHA, 1000, DATA);
        assert_eq!(switch.decide(BETA, &data, 0), Decision::Reply(data.refusal()));
        let again = packet(BETA, 81, ALPHA, 1000, REQUEST);
        assert_eq!(switch.decide(BETA, &again, 0), Decision::Wait(ALPHA));
        // Alpha hears of it once, as soon as it takes something.
        assert_eq!(owed(&mut switch), [(ALPHA, Header::reset((4, 81), (3, 1000)))]);
        assert_eq!(send(&mut switch, BETA, &again), Decision::Deliver(ALPHA));
    }
}

/// Whether the client at `port`, which takes `taken` packets a second, is still waited for after so many seconds.
fn is_waited_for(switch: &mut Switch, port: usize, taken: u32, seconds: u64) -> bool {
    (0..=seconds).all(|second| switch.wait(port, second as u32 * taken, second * FREQUENCY))
}

#[test]
fn a_client_whose_own_packets_wait_for_another_is_not_deaf() {
    let data = packet(BETA, 80, ALPHA, 1000, DATA);
    let mut switch = connected();
    assert_eq!(switch.no_room(BETA, ALPHA, &data, 0, 0), NoRoom::Wait);
    let mut longer = switch.clone();
    assert!(is_waited_for(&mut switch, BETA, 1, 19));
    assert!(!is_waited_for(&mut switch, ALPHA, 1, 2), "nothing holds alpha up");
    // Two cannot keep a third waiting for ever.
    assert!(!is_waited_for(&mut longer, BETA, 1, 20));
}

#[test]
fn a_client_that_no_longer_waits_for_another_has_two_seconds() {
    let data = packet(BETA, 80, ALPHA, 1000, DATA);
    let mut switch = connected();
    assert_eq!(switch.no_room(BETA, ALPHA, &data, 0, 0), NoRoom::Wait);
    assert!(is_waited_for(&mut switch, BETA, 1, 10));
    switch.set_waits_for(BETA, None);
    assert!(switch.wait(BETA, 11, 11 * FREQUENCY));
    assert!(!switch.wait(BETA, 12, 12 * FREQUENCY));
}

#[test]
fn clients_that_wait_for_each_other_are_deaf_in_time() {
    // Each waits for the next one, and the last for the first.
    for ring in [&[ALPHA, BETA][..], &[ALPHA, BETA, GAMMA][..]] {
        let mut switch = connected();
        for (place, port) in ring.iter().enumerate() {
            switch.set_waits_for(*port, ring.get(place + 1).or(ring.first()).copied());
        }
        assert!(is_waited_for(&mut switch, ring[0], 1, 1));
        assert!(!is_waited_for(&mut switch, ring[0], 1, 2), "{ring:?}");
    }
    // Who waits for one of two that wait for each other is held up.
    let mut switch = connected();
    for (from, to) in [(ALPHA, BETA), (BETA, ALPHA), (GAMMA, BETA)] {
        switch.set_waits_for(from, Some(to));
    }
    assert!(is_waited_for(&mut switch, GAMMA, 1, 4));
}

/// Has alpha ask beta for as many connections as it may have, from port 2000 on.
fn fill(switch: &mut Switch, state: State) {
    let connections = &mut switch.ports[ALPHA].connections;
    for asking_port in 2000..2000 + connections.remaining_capacity() as u32 {
        connections.push(Connection { to: BETA as u8, state, asking_port, asked_port: 80 });
    }
}

#[test]
fn a_client_that_asks_without_end_forgets_what_nobody_has_answered() {
    let mut switch = connected();
    fill(&mut switch, State::Requested);
    for port in 9000..9003 {
        assert_eq!(send(&mut switch, ALPHA, &packet(ALPHA, port, BETA, 80, REQUEST)), Decision::Deliver(BETA));
    }
    assert_eq!(send(&mut switch, ALPHA, &packet(ALPHA, 1000, BETA, 80, DATA)), Decision::Deliver(BETA), "it is open");
    let answer = |port: u32| packet(BETA, 80, ALPHA, port, RESPONSE);
    assert_eq!(send(&mut switch, BETA, &answer(2002)), Decision::Reply(answer(2002).refusal()), "the oldest went");
    for port in [2003, 9000, 9002] {
        assert_eq!(send(&mut switch, BETA, &answer(port)), Decision::Deliver(ALPHA), "{port}");
    }
    // What others may ask for is not touched by that.
    assert_eq!(send(&mut switch, GAMMA, &packet(GAMMA, 1, BETA, 80, REQUEST)), Decision::Deliver(BETA));
}

#[test]
fn a_client_has_so_many_open_connections_and_no_more() {
    let mut switch = switch();
    fill(&mut switch, State::Open);
    let one_more = packet(ALPHA, 9999, BETA, 80, REQUEST);
    assert_eq!(send(&mut switch, ALPHA, &one_more), Decision::Reply(one_more.refusal()));
    assert_eq!(send(&mut switch, ALPHA, &packet(ALPHA, 2000, BETA, 80, RESET)), Decision::Deliver(BETA));
    assert_eq!(send(&mut switch, ALPHA, &one_more), Decision::Deliver(BETA));
}

#[test]
fn whoever_asks_does_not_answer_itself() {
    let mut switch = switch();
    let request = packet(ALPHA, 1000, BETA, 80, REQUEST);
    send(&mut switch, ALPHA, &request);
    send(&mut switch, ALPHA, &packet(ALPHA, 1000, BETA, 80, RESPONSE));
    let place = switch.find(ALPHA, BETA, &request).unwrap();
    assert_eq!(switch.connection(place).unwrap().state, State::Requested);
}

#[test]
fn any_bytes_from_any_port_are_decided() {
    let mut switch = connected();
    // A generator of Marsaglia's: the same bytes in every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..if cfg!(miri) { 200 } else { 20_000 } {
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let number = next();
        let mut bytes = [0; HEADER_SIZE];
        bytes.iter_mut().for_each(|byte| *byte = (next() % 7) as u8);
        let from = (number % 5) as usize;
        let mut header = Header::from_bytes(&bytes);
        // Often enough what makes sense.
        (header.source_cid, header.destination_cid) = (3 + (number >> 8) % 4, 3 + (number >> 12) % 4);
        (header.kind, header.operation) = (STREAM, ((number >> 16) % 9) as u16);
        let decision = switch.decide(from, &header, (number >> 20) as u32 & 7);
        if let Decision::Deliver(to) = decision {
            assert!(CIDS[from] == header.source_cid && CIDS[to] == header.destination_cid);
            assert!(from != to && (from, to) != (ALPHA, GAMMA) && (from, to) != (GAMMA, ALPHA));
            switch.delivered(from, to, &header);
        }
        match number >> 60 {
            0 => switch.observe(from, Some(number as u32)),
            1 => {
                let _ = switch.wait(from, number as u32, number >> 30);
            }
            2 => switch.listens(from),
            3 => {
                owed(&mut switch);
            }
            _ => {}
        }
    }
}
