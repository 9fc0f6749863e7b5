use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

use serialport::{SerialPort, TTYPort};

use super::*;

const SOON: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(100);
const REQUEST: Request = Request {
    kind: Kind::Holding,
    address: 4,
    count: 1,
};

fn link(line: impl Line + 'static, timeout: Duration) -> ModbusLink {
    ModbusLink {
        unit_id: 0x11,
        timeout,
        line: Arc::new(Mutex::new(line)),
    }
}

fn said(outcome: Result<Result<Vec<u8>, u8>, Trouble>) -> String {
    match outcome {
        Ok(Ok(data)) => format!("{data:02x?}"),
        Ok(Err(code)) => format!("exception {code}"),
        Err(Trouble::Io { source, .. }) => source.to_string(),
        Err(trouble) => trouble.to_string(),
    }
}

/// A device on TCP: what it sends for the nth request, which it gives back; an empty answer closes the connection.
fn device(answers: Vec<Vec<Vec<u8>>>) -> (String, thread::JoinHandle<Vec<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let serve = move || {
        let mut requests = Vec::new();
        for connection in answers {
            let (mut stream, _): (TcpStream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            for answer in connection {
                let mut request = vec![0; 12];
                stream.read_exact(&mut request).unwrap();
                stream.write_all(&answer).unwrap();
                requests.push(request);
            }
        }
        requests
    };
    (host, thread::spawn(serve))
}

/// An answer of one register.
fn register(transaction: u16, value: u8) -> Vec<u8> {
    let [high, low] = transaction.to_be_bytes();
    vec![high, low, 0, 0, 0, 5, 0x11, 3, 2, 0, value]
}

#[test]
fn a_device_on_tcp_is_asked_and_its_answer_is_told_from_others() {
    // The answer to an earlier question comes before the right one.
    let late = [register(9, 0xee), register(2, 8)].concat();
    let exception = b"\0\x03\0\0\0\x03\x11\x83\x02".to_vec();
    let (host, served) = device(vec![vec![register(1, 7), late, exception]]);
    let mut link = link(tcp::Connection::new(host), SOON);
    assert_eq!(said(link.read(REQUEST)), "[00, 07]");
    assert_eq!(said(link.read(REQUEST)), "[00, 08]");
    assert_eq!(said(link.read(REQUEST)), "exception 2");
    let requests = served.join().unwrap();
    assert_eq!(requests[0], b"\0\x01\0\0\0\x06\x11\x03\0\x04\0\x01");
    assert_eq!(requests[1][..2], [0, 2]);
}

#[test]
fn a_connection_that_broke_is_made_anew() {
    let (host, served) = device(vec![vec![register(1, 7)], vec![register(3, 9)]]);
    let mut link = link(tcp::Connection::new(host), SOON);
    assert_eq!(said(link.read(REQUEST)), "[00, 07]");
    // The device has closed it meanwhile; whether writing or reading tells depends on the kernel.
    assert!(matches!(link.read(REQUEST), Err(Trouble::Io { .. })));
    assert_eq!(said(link.read(REQUEST)), "[00, 09]");
    served.join().unwrap();
}

#[test]
fn a_device_that_is_silent_or_strange_is_told_so_in_time() {
    let check = |answer: &[u8], timeout: Duration, expected: &str| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let answer = answer.to_vec();
        let served = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&answer).unwrap();
            // Until the other side has had enough.
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let begun = Instant::now();
        let mut link = link(tcp::Connection::new(host), timeout);
        let said = said(link.read(REQUEST));
        assert!(said.contains(expected), "{said}");
        assert!(begun.elapsed() < SOON);
        drop(link);
        served.join().unwrap();
    };
    check(b"", SHORT, "unit 17 does not answer within 100ms");
    check(&register(1, 7)[..9], SHORT, "does not answer within 100ms");
    check(b"SSH-2.0-OpenSSH", SOON, "does not speak Modbus");
    check(b"\0\x01\0\0\0\x02\x11", SOON, "does not speak Modbus");
    check(b"\0\x01\0\0\0\xff\x11", SOON, "does not speak Modbus");
}

/// V1.02, section 6.2.2: function 7 to unit 2.
#[test]
fn the_check_sum_is_that_of_the_specification() {
    assert_eq!(rtu::crc(b"\x02\x07"), 0x1241);
}

/// What the other end of a serial line got, and both ends: without one of them the line would hang up.
type Served = (Vec<Vec<u8>>, TTYPort, TTYPort);

/// A serial line whose other end sends these bytes when it has got a request.
fn serial(answers: Vec<Vec<u8>>, timeout: Duration) -> (ModbusLink, thread::JoinHandle<Served>) {
    let (mut device, port) = TTYPort::pair().unwrap();
    let path = port.name().expect("a terminal has a name");
    device.set_timeout(SOON).unwrap();
    let served = thread::spawn(move || {
        let mut requests = Vec::new();
        for answer in answers {
            let mut request = vec![0; 8];
            device.read_exact(&mut request).unwrap();
            device.write_all(&answer).unwrap();
            requests.push(request);
        }
        (requests, device, port)
    });
    let mode = SerialMode::plain(115_200);
    (
        link(rtu::SerialLine::new(path.into(), mode), timeout),
        served,
    )
}

fn framed(pdu: &[u8]) -> Vec<u8> {
    let frame = [&[0x11], pdu].concat();
    let sum = rtu::crc(&frame).to_le_bytes();
    [frame, sum.to_vec()].concat()
}

#[test]
fn a_unit_on_a_serial_line_is_asked_and_answers() {
    let answers = vec![framed(b"\x03\x02\0\x07"), framed(b"\x83\x02")];
    let (mut link, served) = serial(answers, SOON);
    assert_eq!(said(link.read(REQUEST)), "[00, 07]");
    assert_eq!(said(link.read(REQUEST)), "exception 2");
    drop(link);
    let (requests, ..) = served.join().unwrap();
    assert_eq!(requests[0], framed(b"\x03\x00\x04\x00\x01"));
}

#[test]
fn what_comes_late_on_a_line_is_not_the_next_answer() {
    let with_another = [framed(b"\x03\x02\0\x07"), framed(b"\x03\x02\0\xee")].concat();
    let (mut link, served) = serial(vec![with_another, framed(b"\x03\x02\0\x09")], SOON);
    assert_eq!(said(link.read(REQUEST)), "[00, 07]");
    assert_eq!(said(link.read(REQUEST)), "[00, 09]");
    drop(link);
    served.join().unwrap();
}

#[test]
fn a_bad_line_is_told_from_a_silent_unit_and_from_another() {
    let check = |answer: &[u8], expected: &str| {
        let good = framed(b"\x03\x02\0\x09");
        let (mut link, served) = serial(vec![answer.to_vec(), good], SHORT);
        let outcome = said(link.read(REQUEST));
        assert!(outcome.contains(expected), "{outcome}");
        // What is left of the bad answer does not spoil the next.
        link.timeout = SOON;
        assert_eq!(said(link.read(REQUEST)), "[00, 09]");
        drop(link);
        served.join().unwrap();
    };
    let mut damaged = framed(b"\x03\x02\0\x07");
    damaged[4] ^= 0x10;
    check(&damaged, "the check sum is wrong");
    check(b"", "unit 17 does not answer");
    check(
        &framed(b"\x03\x02\0\x07")[..5],
        "or not in full, within 100ms",
    );
    let mut other = b"\x12\x03\x02\0\x07".to_vec();
    other.extend(rtu::crc(&other).to_le_bytes());
    check(&other, "unit 18 answers instead of 17");
}

#[test]
fn units_of_a_line_share_it_and_its_settings() {
    let route = |baud| Route::Serial {
        path: "/dev/ttyMODBUS0".into(),
        mode: SerialMode::plain(baud),
    };
    let first = shared(route(9_600)).unwrap();
    assert!(Arc::ptr_eq(&first, &shared(route(9_600)).unwrap()));
    let refused = shared(route(19_200)).err().unwrap().to_string();
    assert!(
        refused.contains("another node uses /dev/ttyMODBUS0"),
        "{refused}"
    );
    drop(first);
    assert!(shared(route(19_200)).is_ok(), "nobody uses it any more");
}

fn place(options: &str) -> ModbusPlace {
    toml::from_str(options).unwrap()
}

#[test]
fn a_place_is_one_device_at_one_line() {
    const ABOUT: &About = &<crate::sensors::parts::Modbus as Part>::ABOUT;
    let check = |options: &str, expected: &str| {
        let problems = place(options).problems(ABOUT);
        match expected {
            "" => assert!(problems.is_empty(), "{options}: {problems:?}"),
            option => assert!(
                problems.len() == 1 && problems[0].0 == option,
                "{options}: {problems:?}"
            ),
        }
    };
    check("host = '192.0.2.20'", "");
    check("host = '[2001:db8::5]:1502'", "");
    check("port = 'ttyUSB0'", "");
    check("", "host");
    check("host = '192.0.2.20'\nport = 'ttyUSB0'", "port");
    check("host = 'tcp://192.0.2.20'", "host");
    check("port = '../sda'", "port");
    check("port = 'ttyUSB0'\nunit_id = 247", "");
    check("port = 'ttyUSB0'\nunit_id = 248", "unit_id");
    check("host = 'a'\nunit_id = 255", "");
    check("host = 'a'\nunit_id = 0", "unit_id");
    check("host = 'a'\ntimeout = '10ms'", "");
    check("host = 'a'\ntimeout = '9ms'", "timeout");
    check("host = 'a'\ntimeout = '10s'", "");
    check("host = 'a'\ntimeout = '11s'", "timeout");
    check("port = 'a'\nstop_bits = 3", "stop_bits");
    check("port = 'a'\nbaud = 100", "baud");
}

#[test]
fn the_bus_is_the_line_whatever_the_unit() {
    let check = |options: &str, expected: &str| assert_eq!(place(options).bus(), expected);
    check("port = 'ttyUSB0'\nunit_id = 1", "serial-ttyUSB0");
    check("port = '/dev/ttyUSB0'\nunit_id = 2", "serial-ttyUSB0");
    check("host = '192.0.2.20'", "modbus-192.0.2.20:502");
    check(
        "host = '192.0.2.20:502'\nunit_id = 9",
        "modbus-192.0.2.20:502",
    );
    check("host = '192.0.2.20:1502'", "modbus-192.0.2.20:1502");
}

#[test]
fn a_character_has_eleven_bits_unless_the_flow_says_otherwise() {
    let check = |options: &str, parity: Parity, stop_bits: StopBits| {
        let mode = place(options).mode();
        assert_eq!(
            (mode.parity, mode.stop_bits),
            (parity, stop_bits),
            "{options}"
        );
    };
    check("port = 'a'", Parity::Even, StopBits::One);
    check("port = 'a'\nparity = 'odd'", Parity::Odd, StopBits::One);
    check("port = 'a'\nparity = 'none'", Parity::None, StopBits::Two);
    check(
        "port = 'a'\nparity = 'none'\nstop_bits = 1",
        Parity::None,
        StopBits::One,
    );
}
