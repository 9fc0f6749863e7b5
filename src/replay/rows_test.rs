//! What files give, row by row.

use std::io::Cursor;
use std::path::Path;

use jiff::tz::TimeZone;

use super::rows::{FileError, LONGEST_ROW, Row, RowOptions, Rows};
use crate::runtime::driver::chain;

fn read_with(path: &str, text: impl Into<Vec<u8>>, options: &RowOptions) -> Vec<String> {
    let source = Box::new(Cursor::new(text.into()));
    let mut rows = match Rows::new(Path::new(path), source, options) {
        Ok(rows) => rows,
        Err(error) => return vec![said(&error)],
    };
    let mut found = Vec::new();
    loop {
        found.push(match rows.read() {
            Ok(None) => return found,
            Ok(Some(Ok(row))) => shown(&row),
            Ok(Some(Err(problem))) => {
                format!("{}: {}: {}", problem.line, problem.kind, problem.message)
            }
            Err(error) => {
                found.push(said(&error));
                return found;
            }
        });
    }
}

fn shown(
    Row {
        time,
        topic,
        payload,
    }: &Row,
) -> String {
    let topic = topic
        .as_deref()
        .map(|topic| format!(" {topic}"))
        .unwrap_or_default();
    format!("{time}{topic} {payload}")
}

fn said(error: &FileError) -> String {
    format!("error: {}", chain(error))
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    assert_eq!(
        read_with("f", text, &RowOptions::default()),
        expected,
        "{text:?}"
    );
}

#[track_caller]
fn check_error(text: impl Into<Vec<u8>>, expected: &str) {
    let found = read_with("f", text, &RowOptions::default());
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains(expected), "{found:?}");
}

const T: &str = "1970-01-01T00:00:07.000Z";

#[test]
fn csv_has_a_payload_or_an_object_of_the_other_columns() {
    check("time,payload\n7,21.5\n", &[&format!("{T} 21.5")]);
    check("payload , time\n21.5,7", &[&format!("{T} 21.5")]);
    check("time,payload,more\n7,,x\n", &[&format!("{T} null")]);
    check(
        "time,topic,b,a\n7,x,1,yes\n7,,,true\n",
        &[
            &format!("{T} x {{\"b\":1,\"a\":\"yes\"}}"),
            &format!("{T} {{\"a\":true}}"),
        ],
    );
    check("time\n7\n", &[&format!("{T} {{}}")]);
    check("time,payload\n", &[]);
    // The column that pandas writes for its index.
    check(",time,a\n0,7,1\n", &[&format!("{T} {{\"a\":1}}")]);
}

#[test]
fn lines_of_csv_end_as_they_like_and_may_be_empty() {
    check(
        "\u{feff}time,payload\r\n7,1\r\n\r\n\n7,2",
        &[&format!("{T} 1"), &format!("{T} 2")],
    );
}

#[test]
fn a_carriage_return_alone_loses_no_row_without_a_word() {
    for header in [
        "time,payload",
        "\"time\",payload",
        "payload,time",
        "a,time,b",
    ] {
        let text = format!("{header}\r7,1\r8,2\r");
        check_error(text, "tr '\\r' '\\n' < FILE");
    }
    let problem = |text: &str, expected: &str| {
        let found = read_with("f", text, &RowOptions::default());
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with(expected), "{found:?}");
        assert_eq!(found[1], format!("{T} 9"));
    };
    problem(
        "time,payload\n\"6\",1\r\"7\",2\n7,9",
        "2: with a carriage return: ",
    );
    problem(
        "time,payload\n6,1\r7,2\n7,9",
        "2: with the wrong number of fields: ",
    );
    check(
        "time,payload\n\"7\",\"a\rb\"\r\n",
        &[&format!("{T} \"a\\rb\"")],
    );
}

#[test]
fn quotation_marks_hold_commas_and_lines_together() {
    check(
        "\"time\",\"payload\"\n7,\"a,\"\"b\"\"\"\n\"7\",\"two\nlines\"\n7,c",
        &[
            &format!("{T} \"a,\\\"b\\\"\""),
            &format!("{T} \"two\\nlines\""),
            &format!("{T} \"c\""),
        ],
    );
    check("time,payload\n7,\"1\"", &[&format!("{T} 1")]);
    // Inside a field they are what they are.
    check(
        "time,payload\n7,3.5\" pipe\n7,2\n",
        &[&format!("{T} \"3.5\\\" pipe\""), &format!("{T} 2")],
    );
}

#[test]
fn a_quotation_mark_that_is_not_closed_costs_one_line() {
    check(
        "time,payload\n7,1\n7,\"2\n7,3\n",
        &[
            &format!("{T} 1"),
            "3: with a quotation mark that is not closed: a quotation mark opens a field that does not end",
            &format!("{T} 3"),
        ],
    );
    let mut text = String::from("time,payload\n7,\"2\n");
    text += &"7,3\n".repeat(LONGEST_ROW / 2);
    let found = read_with("f", text, &RowOptions::default());
    assert_eq!(found.len(), 1 + LONGEST_ROW / 2);
}

#[test]
fn rows_of_csv_that_are_wrong_are_told_and_left_out() {
    let text = b"time,payload\n7\n7,1,2\n,1\nsoon,1\n7,\xe9\n7,4\n".to_vec();
    let found = read_with("f", text, &RowOptions::default());
    assert_eq!(
        found,
        [
            "2: with the wrong number of fields: 1 fields, but the header names 2 columns",
            "3: with the wrong number of fields: 3 fields, but the header names 2 columns",
            "4: without a time: no time",
            "5: with a time that is none: `soon` is no time; it would be RFC 3339, such as 2026-01-31T08:00:00Z, or Unix seconds",
            "6: not in UTF-8: field 2 is not in UTF-8: \\xe9",
            &format!("{T} 4"),
        ]
    );
    let mut text = String::from("time,payload\n7,");
    text.extend(std::iter::repeat_n('x', LONGEST_ROW - 3));
    let longest = format!("{text}\n7,2\n");
    assert_eq!(read_with("f", longest, &RowOptions::default()).len(), 2);
    let found = read_with("f", format!("{text}x\n7,2\n"), &RowOptions::default());
    assert_eq!(
        found,
        [
            "2: too long: the line is longer than 1048576 bytes",
            &format!("{T} 2")
        ]
    );
}

#[test]
fn json_lines_are_objects() {
    check(
        "{\"time\":7,\"payload\":{\"a\":[1]},\"node\":\"x\"}\r\n\n{\"a\":1,\"topic\":\"t\",\"time\":\"1970-01-01T00:00:07Z\"}",
        &[&format!("{T} {{\"a\":[1]}}"), &format!("{T} t {{\"a\":1}}")],
    );
    check(
        "{\"time\":7,\"payload\":null,\"topic\":null}\n[1]\n{\"time\":7,\n{}\n{\"time\":7,\"topic\":3}\n{\"time\":[7]}\n7\n",
        &[
            &format!("{T} null"),
            "2: not an object: it is JSON, but no object",
            "3: not JSON: no JSON: EOF while parsing a value, at character 10",
            "4: without a time: no time",
            "5: with a topic that is no text: `topic` must be text, but it is a number",
            "6: with a time that is none: `[7]` is no time; it would be RFC 3339, such as 2026-01-31T08:00:00Z, or Unix seconds",
            "7: not an object: it is JSON, but no object",
        ],
    );
    let found = read_with(
        "f",
        b"{\"time\":7,\"a\":\"\xe9\"}".to_vec(),
        &RowOptions::default(),
    );
    assert!(found[0].starts_with("1: not JSON"), "{found:?}");
    let deep = format!("{{\"time\":7,\"a\":{}}}", "[".repeat(100_000));
    let found = read_with("f", deep, &RowOptions::default());
    assert!(found[0].contains("recursion limit"), "{found:?}");
}

#[test]
fn the_format_is_told_by_the_ending_or_the_first_character() {
    let options = RowOptions::default();
    let row = format!("{T} 1");
    assert_eq!(read_with("f.csv", "time,payload\n7,1", &options), [&*row]);
    for path in ["f.jsonl", "f.ndjson", "f.JSONL", "f.json", "f.log", "-"] {
        let found = read_with(path, "\n {\"time\":7,\"payload\":1}", &options);
        assert_eq!(found, [&*row], "{path}");
    }
    assert_eq!(read_with("f.jsonl", "", &options), [""; 0]);
}

#[test]
fn times_are_exact_in_every_form() {
    let check = |time: &str, expected: &str| {
        for (name, text) in [
            (
                "f.csv",
                format!("time,payload\n{time},1\n1970-01-01T00:00:00Z,1\n{time},1"),
            ),
            ("f.jsonl", format!("{{\"time\":\"{time}\",\"payload\":1}}")),
        ] {
            let found = read_with(name, text, &RowOptions::default());
            for found in [found.first(), found.last()] {
                assert_eq!(found.unwrap(), &format!("{expected} 1"), "{time} in {name}");
            }
        }
    };
    check("1970-01-01T00:00:07Z", T);
    check("1970-01-01t00:00:07z", T);
    check("1970-01-01 00:00:07+00:00", T);
    check("1970-01-01T02:00:07.000+02:00", T);
    check("1969-12-31T19:00:07-05:00", T);
    check("1970-01-01T00:00:07.25Z", "1970-01-01T00:00:07.250Z");
    check(
        "1970-01-01T00:00:07.123456789Z",
        "1970-01-01T00:00:07.123456789Z",
    );
    check("2016-12-31T23:59:60Z", "2016-12-31T23:59:59.000Z");
    check("2024-02-29T12:00:00Z", "2024-02-29T12:00:00.000Z");
    check("7", T);
    check("7.0", T);
    check("-0.5", "1969-12-31T23:59:59.500Z");
    check("1700000000.123456789", "2023-11-14T22:13:20.123456789Z");
    check("1700000000.9999999999", "2023-11-14T22:13:20.999999999Z");
    check("1.7e9", "2023-11-14T22:13:20.000Z");
}

#[test]
fn unix_seconds_of_json_are_what_was_written() {
    let check = |time: &str, expected: &str| {
        let found = read_with(
            "f.jsonl",
            format!("{{\"time\":{time},\"payload\":1}}"),
            &RowOptions::default(),
        );
        assert_eq!(found, [format!("{expected} 1")], "{time}");
    };
    check("7", T);
    check("7.0", T);
    check("-7", "1969-12-31T23:59:53.000Z");
    check("1700000000.123456", "2023-11-14T22:13:20.123456Z");
    // The last float before the next second.
    check("1700000000.9999998", "2023-11-14T22:13:20.9999998Z");
    check("9223372036.5", "2262-04-11T23:47:16.500Z");
}

#[test]
fn times_that_cannot_be_are_told() {
    let check = |time: &str, expected: &str| {
        let found = read_with(
            "f",
            format!("time,payload\n{time},1"),
            &RowOptions::default(),
        );
        assert!(found[0].contains(expected), "{time}: {found:?}");
    };
    for time in [
        "1970-01-01T24:00:00Z",
        "1970-02-30T00:00:00Z",
        "1970-01-01T00:60:00Z",
        "1.2.3",
        "-",
        "1e",
        "NaN",
        "12:00",
    ] {
        check(time, "is no time; it would be");
    }
    for time in [
        "1700000000000",
        "9223372037",
        "-1e10",
        "2500-01-01T00:00:00Z",
    ] {
        check(time, "lies outside of the years");
    }
}

#[test]
fn local_times_need_a_zone() {
    check_error(
        "time,payload\n2024-05-01 12:00:00,1\n",
        "error: the times of f say no offset from UTC, as `2024-05-01 12:00:00` on line 2; say what they are in: --time-zone",
    );
    let options = RowOptions {
        time_zone: Some(TimeZone::get("Europe/Berlin").unwrap()),
        ..RowOptions::default()
    };
    let times = [
        ("2024-05-01 12:00:00", "2024-05-01T10:00:00.000Z 1"),
        ("2024-05-01T12:00:00Z", "2024-05-01T12:00:00.000Z 1"),
        ("2024-05-02", "2024-05-01T22:00:00.000Z 1"),
        (
            "2024-03-31 02:30:00",
            "with a local time that does not exist",
        ),
        ("2024-10-27 02:30:00", "2024-10-27T00:30:00.000Z 1"),
        ("2024-10-27 02:00:00", "2024-10-27T01:00:00.000Z 1"),
        ("2024-10-27 02:30:00", "2024-10-27T01:30:00.000Z 1"),
    ];
    let text = times.map(|(time, _)| format!("{time},1\n")).concat();
    let found = read_with("f", format!("time,payload\n{text}"), &options);
    for ((time, expected), found) in times.iter().zip(&found) {
        assert!(found.contains(expected), "{time}: {found}");
    }
    // One that comes later is a row that is wrong.
    let found = read_with(
        "f",
        "time,payload\n7,1\n2024-05-01 12:00:00,1",
        &RowOptions::default(),
    );
    assert!(
        found[1].contains("says no offset from UTC; say with --time-zone"),
        "{found:?}"
    );
}

#[test]
fn columns_have_the_names_that_were_said() {
    let options = RowOptions {
        time_column: "at".into(),
        payload_column: "t".into(),
        time_zone: None,
    };
    assert_eq!(
        read_with("f", "at,t,time\n7,1,x", &options),
        [format!("{T} 1")]
    );
    assert_eq!(
        read_with("f", "{\"at\":7,\"t\":1,\"time\":\"x\"}", &options),
        [format!("{T} 1")]
    );
    let without = read_with("f", "at,T,u\n7,1,2", &options);
    assert!(
        without[0]
            .contains("no column `t`; its columns are `at`, `T`, `u`; is it --payload-column T?"),
        "{without:?}"
    );
}

#[test]
fn a_file_of_no_use_is_told_with_what_to_do() {
    check_error("", "error: f is empty; it must have a header");
    check_error("\r\n\n", "f is empty");
    check_error(
        "date,payload\n",
        "the header of f (line 1): it has no column `time`; its columns are `date`, `payload`; is it --time-column date?",
    );
    check_error(
        "a,b\n",
        "its columns are `a`, `b`; name the one with the time: --time-column NAME",
    );
    check_error(
        "time;payload\n",
        "columns are separated by commas, here there is `;`",
    );
    check_error("time\tpayload\n", "here there is `\\t`");
    check_error(
        "2024-01-01T00:00:00Z,1\n",
        "the first line must name the columns, and this one has numbers",
    );
    check_error("time,a,a\n", "it names the column `a` twice");
    check_error("[\n{\"time\":7}]", "f is one JSON array");
    check_error(
        [0x1f, 0x8b, 8, 0],
        "f is compressed; unpack it first, as in: gunzip -c",
    );
    check_error([0xff, 0xfe, b't', 0], "f is no text in UTF-8");
    // It never ends.
    let zeros = Box::new(std::io::repeat(0));
    let opened = Rows::new(Path::new("f"), zeros, &RowOptions::default());
    let error = opened.err().expect("it is of no use");
    assert!(said(&error).contains("f is no text in UTF-8"));
    check_error(b"time,\0\0\n".to_vec(), "f is no text");
    check_error(b"t\xefme,a\n".to_vec(), "f is no text");
    check_error("x".repeat(LONGEST_ROW + 1), "the line is longer than");
    let found = match super::rows::open(Path::new("/nowhere/f.csv"), &RowOptions::default()) {
        Ok(_) => String::new(),
        Err(error) => said(&error),
    };
    assert!(
        found.starts_with("error: cannot open /nowhere/f.csv; check the path"),
        "{found}"
    );
}
