use super::*;

const REGISTER: Register = Register {
    address: 0,
    kind: Kind::Holding,
    format: None,
    scale: 1.0,
    offset: 0.0,
    unit: String::new(),
};

/// A part as a flow has it.
fn part(options: &str) -> Modbus {
    toml::from_str(options).unwrap()
}

/// Answers these PDUs, whatever is asked.
struct Answers(std::vec::IntoIter<Vec<u8>>);

impl ModbusTwin for Answers {
    fn answer(&mut self, _: &[u8]) -> Vec<u8> {
        self.0.next().unwrap()
    }
}

fn read(options: &str, answers: &[&[u8]]) -> Result<Vec<f64>, String> {
    let answers: Vec<Vec<u8>> = answers.iter().map(|answer| answer.to_vec()).collect();
    let link = ModbusLink::to(Box::new(Answers(answers.into_iter())));
    let mut chip = part(options).open(link).unwrap();
    chip.measure().map_err(|trouble| trouble.to_string())
}

/// The examples of the specification V1.1b3: sections 6.3, 6.4, 6.1 and 6.2.
#[test]
fn the_examples_of_the_specification_come_out() {
    let check = |options: &str, request: &[u8], answer: &[u8], expected: &[f64]| {
        let registers: Vec<(String, Register)> = part(options).registers.into_iter().collect();
        let batches = batches(&registers);
        assert_eq!(batches.len(), 1);
        assert_eq!(batches[0].request.pdu(), request);
        assert_eq!(read(options, &[answer]).unwrap(), expected);
    };
    check(
        "registers.a.address = 107\nregisters.b.address = 108\nregisters.c.address = 109",
        b"\x03\x00\x6b\x00\x03",
        b"\x03\x06\x02\x2b\x00\x00\x00\x64",
        &[555.0, 0.0, 100.0],
    );
    check(
        "registers.a = { address = 8, kind = 'input' }",
        b"\x04\x00\x08\x00\x01",
        b"\x04\x02\x00\x0a",
        &[10.0],
    );
    // Coils 20 to 38 in the specification's counting from 1; the first byte is CD, coils 27 to 20: 1100 1101; the last is 05.
    let coils: String = (19..38)
        .map(|address| format!("registers.c{address} = {{ address = {address}, kind = 'coil' }}\n"))
        .collect();
    let bits = "1011001111010110101"; // CD, 6B and 05 from their lowest bits.
    let bits: Vec<f64> = bits.bytes().map(|bit| f64::from(bit - b'0')).collect();
    check(
        &coils,
        b"\x01\x00\x13\x00\x13",
        b"\x01\x03\xcd\x6b\x05",
        &bits,
    );
    let inputs: String = (196..218)
        .map(|address| {
            format!("registers.i{address} = {{ address = {address}, kind = 'discrete' }}\n")
        })
        .collect();
    let bits = "0011010111011011101011";
    let bits: Vec<f64> = bits.bytes().map(|bit| f64::from(bit - b'0')).collect();
    check(
        &inputs,
        b"\x02\x00\xc4\x00\x16",
        b"\x02\x03\xac\xdb\x35",
        &bits,
    );
}

#[test]
fn words_become_numbers() {
    let check = |format: &str, order: &str, words: &[u8], expected: f64| {
        let options =
            format!("word_order = '{order}'\nregisters.a = {{ address = 7, type = '{format}' }}");
        let answer = [&[3, words.len() as u8], words].concat();
        let values = read(&options, &[&answer]).unwrap();
        assert_eq!(values, [expected], "{format} {order} {words:02x?}");
    };
    check("u16", "big", b"\xff\xff", 65_535.0);
    check("i16", "big", b"\xff\xff", -1.0);
    check("u32", "big", b"\x00\x01\x00\x02", 65_538.0);
    check("u32", "little", b"\x00\x02\x00\x01", 65_538.0);
    check("i32", "big", b"\xff\xff\xff\xfe", -2.0);
    check("i32", "little", b"\xff\xfe\xff\xff", -2.0);
    // 230.1 in single precision is 4366 199a.
    check("f32", "big", b"\x43\x66\x19\x9a", 230.1);
    check("f32", "little", b"\x19\x9a\x43\x66", 230.1);
    check("u64", "big", b"\0\0\0\x01\0\0\0\0", 4_294_967_296.0);
    check("u64", "little", b"\0\0\0\0\0\x01\0\0", 4_294_967_296.0);
    check("i64", "big", &[0xff; 8], -1.0);
    check("f64", "big", &(-0.5_f64).to_be_bytes(), -0.5);
}

#[test]
fn what_was_written_is_read_back() {
    for (format, value) in [
        (Format::U16, 12.0),
        (Format::I16, -12.0),
        (Format::U32, 70_000.0),
        (Format::I32, -70_000.0),
        (Format::U64, 5e9),
        (Format::I64, -5e9),
        (Format::F32, -1.5),
        (Format::F64, 1e-3),
    ] {
        for order in [WordOrder::Big, WordOrder::Little] {
            let register = Register {
                format: Some(format),
                ..REGISTER
            };
            let data = register.encode(value, order).concat();
            assert_eq!(
                register.decode(&data, 0, order),
                value,
                "{format:?} {order:?}"
            );
        }
    }
}

#[test]
fn scale_and_offset_apply_and_leave_no_noise() {
    let options =
        "registers.a = { address = 0, type = 'i16', scale = 0.1, offset = -40, unit = 'degC' }";
    let values = read(options, &[b"\x03\x02\x02\x6e"]).unwrap();
    let quantity = part(options).quantities().remove(0);
    assert_eq!(
        (&*quantity.name, &*quantity.unit, quantity.decimals),
        ("a", "degC", 1)
    );
    assert_eq!(quantity.plausible(values[0]).unwrap(), 22.2);
    let whole = part("registers.a = { address = 0, type = 'u32' }")
        .quantities()
        .remove(0);
    assert_eq!(whole.decimals, 0);
}

#[test]
fn adjacent_registers_share_a_request() {
    let check = |registers: &[(u16, Kind, Format)], expected: &[(u16, u16)]| {
        let registers: Vec<(String, Register)> = registers
            .iter()
            .map(|&(address, kind, format)| {
                let format = Some(format);
                (
                    address.to_string(),
                    Register {
                        address,
                        kind,
                        format,
                        ..REGISTER
                    },
                )
            })
            .collect();
        let batches = batches(&registers);
        let found: Vec<(u16, u16)> = batches
            .iter()
            .map(|batch| (batch.request.address, batch.request.count))
            .collect();
        assert_eq!(found, expected);
        let read: usize = batches.iter().map(|batch| batch.of.len()).sum();
        assert_eq!(read, registers.len());
    };
    let (u16, u32) = (Format::U16, Format::U32);
    let holding = |address, format| (address, Kind::Holding, format);
    check(
        &[holding(2, u32), holding(0, u32), holding(4, u16)],
        &[(0, 5)],
    );
    // Not across a gap, however small.
    check(&[holding(0, u16), holding(2, u16)], &[(0, 1), (2, 1)]);
    check(&[holding(0, u16), (1, Kind::Input, u16)], &[(0, 1), (1, 1)]);
    // The same words as two numbers.
    check(&[holding(0, u32), holding(1, u16)], &[(0, 2)]);
    check(
        &[holding(65_534, u16), holding(65_535, u16)],
        &[(65_534, 2)],
    );
    // At most 125, and no number torn.
    let many: Vec<_> = (0..126).map(|address| holding(address, u16)).collect();
    check(&many[..125], &[(0, 125)]);
    check(&many, &[(0, 125), (125, 1)]);
    let long: Vec<_> = (0..63).map(|i| holding(2 * i, u32)).collect();
    check(&long, &[(0, 124), (124, 2)]);
    let bits: Vec<_> = (0..2_001)
        .map(|it| (it, Kind::Coil, Format::Bool))
        .collect();
    check(&bits, &[(0, 2_000), (2_000, 1)]);
}

#[test]
fn exceptions_are_said_in_words() {
    let check = |answer: &[u8], expected: &[&str]| {
        let options =
            "registers.power = { address = 10, type = 'u32' }\nregisters.energy.address = 12";
        let said = read(options, &[answer]).unwrap_err();
        for expected in expected {
            assert!(said.contains(expected), "{said}");
        }
    };
    check(
        b"\x83\x02",
        &[
            "holding register 10 to 12 (power, energy)",
            "illegal data address (0x02)",
            "40001 in a manual is holding register 0",
        ],
    );
    check(b"\x83\x01", &["illegal function", "another `kind`"]);
    check(b"\x83\x0b", &["the gateway is there"]);
    check(b"\x83\x63", &["exception 0x63"]);
    // The answer to another question, one that is too short, and one whose count lies.
    check(b"\x04\x06\0\0\0\0\0\0", &["is not one to what was asked"]);
    check(b"\x03\x04\0\0\0\0", &["is not one to what was asked"]);
    check(b"\x03\x05\0\0\0\0\0\0", &["is not one to what was asked"]);
    check(b"\x84\x02", &["is not one to what was asked"]);
    check(b"", &["is not one to what was asked"]);
}

#[test]
fn what_is_not_a_number_is_no_reading() {
    let options = "registers.flow = { address = 0, type = 'f32' }";
    let said = read(options, &[b"\x03\x04\x7f\xc0\0\0"]).unwrap_err();
    assert!(said.contains("`flow` is NaN"), "{said}");
}

#[test]
fn mistakes_in_the_table_are_told() {
    let check = |options: &str, expected: &str| {
        let problems = part(options).problems();
        let all: Vec<&str> = problems.iter().map(|(_, said)| &**said).collect();
        match expected {
            "" => assert!(all.is_empty(), "{all:?}"),
            expected => assert!(all.len() == 1 && all[0].contains(expected), "{all:?}"),
        }
    };
    check("registers.a.address = 65535", "");
    check("registers = {}", "is empty");
    check(
        "registers.a = { address = 65535, type = 'u32' }",
        "`a`: it ends after the last address",
    );
    check(
        "registers.a = { address = 1, kind = 'coil', type = 'u16' }",
        "this is a coil",
    );
    check(
        "registers.a = { address = 1, type = 'bool' }",
        "this is a holding register",
    );
    check("registers.a = { address = 1, scale = 0 }", "`scale` not 0");
}

#[test]
fn a_reading_is_what_is_around_the_twin() {
    let options = "
        registers.air = { address = 3, type = 'i16', scale = 0.1, unit = 'degC' }
        registers.mains = { address = 1, type = 'f32', unit = 'V' }
        registers.on = { address = 9, kind = 'coil' }
        registers.share = { address = 0, kind = 'input', type = 'u32', scale = 0.01, unit = 'kWh' }";
    for order in ["big", "little"] {
        let part = part(&format!("word_order = '{order}'\n{options}"));
        let scene = Scene::still(&[
            (Physical::Temperature, -4.2),
            (Physical::Voltage, 1.625),
            (Physical::Share, 71.25),
        ]);
        let mut chip = part.open(ModbusLink::to(part.twin(scene))).unwrap();
        let expected = [-42.0 * 0.1, 1.625, 1.0, 7_125.0 * 0.01];
        assert_eq!(chip.measure().unwrap(), expected);
    }
}

#[test]
fn a_twin_refuses_what_it_does_not_have() {
    let part = part("registers.a.address = 5");
    let mut twin = part.twin(Scene::still(&[(Physical::Share, 10.0)]));
    assert_eq!(twin.answer(b"\x03\x00\x05\x00\x01"), b"\x03\x02\x00\x0a");
    assert_eq!(twin.answer(b"\x03\x00\x05\x00\x02"), b"\x83\x02");
    assert_eq!(twin.answer(b"\x2b\x0e\x01\x00"), b"\xab\x01");
}
