//! States in which one thing is another: a number, a list, whatever MessagePack has.

/// What stands in the place of each thing.
const OTHERS: &[&[u8]] = &[
    &[0x00],
    &[0xff],                                                 // -1
    &[0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], // 2^64 - 1
    &[0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0],                      // -2^63
    &[0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0],                   // NaN
    &[0xcb, 0x7f, 0xf0, 0, 0, 0, 0, 0, 0],                   // infinity
    &[0xc0],                                                 // nil
    &[0xc3],                                                 // true
    &[0x90],                                                 // an empty list
    &[0x80],                                                 // an empty map
];

/// The state with each of its things, one at a time, replaced by each of the others.
pub(super) fn states(state: &[u8]) -> Vec<Vec<u8>> {
    let mut things = Vec::new();
    let end = find(state, 0, &mut things);
    assert_eq!(end, state.len());
    let altered = things.iter().flat_map(|(begin, end)| {
        OTHERS
            .iter()
            .map(|other| [&state[..*begin], other, &state[*end..]].concat())
    });
    altered.collect()
}

/// Finds the thing at a place and all that is in it, but for the names of fields; gives its end.
fn find(state: &[u8], begin: usize, things: &mut Vec<(usize, usize)>) -> usize {
    let number = |bytes: usize| {
        let number = &state[begin + 1..begin + 1 + bytes];
        number
            .iter()
            .fold(0, |number, byte| number << 8 | usize::from(*byte))
    };
    let place = things.len();
    things.push((begin, begin));
    // Of a list the first and the last: the others are like them.
    let all = |head: usize, count: usize, things: &mut Vec<(usize, usize)>| {
        (0..count).fold(begin + head, |at, place| {
            let is_like_others = count > 6 && place != 0 && place != count - 1;
            match is_like_others {
                true => find(state, at, &mut Vec::new()),
                false => find(state, at, things),
            }
        })
    };
    let pairs = |head: usize, count: usize, things: &mut Vec<(usize, usize)>| {
        (0..count).fold(begin + head, |at, _| {
            let value = find(state, at, &mut Vec::new());
            find(state, value, things)
        })
    };
    let end = match state[begin] {
        0x00..=0x7f | 0xe0..=0xff | 0xc0..=0xc3 => begin + 1,
        head @ 0x80..=0x8f => pairs(1, usize::from(head & 0xf), things),
        head @ 0x90..=0x9f => all(1, usize::from(head & 0xf), things),
        head @ 0xa0..=0xbf => begin + 1 + usize::from(head & 0x1f),
        0xc4 | 0xd9 => begin + 2 + number(1),
        0xc5 | 0xda => begin + 3 + number(2),
        0xcc | 0xd0 => begin + 2,
        0xcd | 0xd1 => begin + 3,
        0xca | 0xce | 0xd2 => begin + 5,
        0xcb | 0xcf | 0xd3 => begin + 9,
        0xdc => all(3, number(2), things),
        0xde => pairs(3, number(2), things),
        head => panic!("{head:x} is not in any state"),
    };
    things[place].1 = end;
    end
}
