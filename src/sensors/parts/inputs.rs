//! Which inputs of an analog-to-digital converter are measured.

use schemars::JsonSchema;
use serde::Deserialize;

/// One input, or the difference of two.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Inputs {
    One(u8),
    Difference(String),
}

impl Inputs {
    /// The inputs by number: the positive one, and the one that is taken from it.
    pub(super) fn numbers(&self) -> Option<(u8, Option<u8>)> {
        match self {
            Inputs::One(input) => Some((*input, None)),
            Inputs::Difference(pair) => {
                let (positive, negative) = pair.split_once('-')?;
                Some((positive.parse().ok()?, Some(negative.parse().ok()?)))
            }
        }
    }

    /// What the inputs are in the chip's own code, if it can measure them.
    pub(super) fn code(&self, codes: &[(u8, Option<u8>, u8)]) -> Option<u8> {
        let (positive, negative) = self.numbers()?;
        let mut codes = codes.iter();
        codes.find_map(|&(p, n, code)| ((p, n) == (positive, negative)).then_some(code))
    }

    /// What is wrong, if the chip cannot measure them.
    pub(super) fn problem(&self, codes: &[(u8, Option<u8>, u8)]) -> Option<(&'static str, String)> {
        if self.code(codes).is_some() {
            return None;
        }
        let known = codes.iter().map(|(positive, negative, _)| match negative {
            None => format!("{positive}"),
            Some(negative) => format!("\"{positive}-{negative}\""),
        });
        let known: Vec<String> = known.collect();
        let message = format!("there is no such input; it has {}", known.join(", "));
        Some(("channel", message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODES: &[(u8, Option<u8>, u8)] = &[(0, Some(1), 7), (0, None, 3), (12, None, 5)];

    #[test]
    fn inputs_become_the_chips_code_or_a_list_of_those_there_are() {
        let check = |inputs: Inputs, expected: Option<u8>| {
            assert_eq!(inputs.code(CODES), expected, "{inputs:?}");
            let problem = inputs.problem(CODES);
            assert_eq!(problem.is_none(), expected.is_some(), "{inputs:?}");
        };
        let pair = |text: &str| Inputs::Difference(text.to_owned());
        check(Inputs::One(0), Some(3));
        check(Inputs::One(12), Some(5));
        check(Inputs::One(1), None);
        check(pair("0-1"), Some(7));
        for wrong in ["1-0", "0", "0-", "-1", "0-1-2", "", "a-b", "0-256", "0 - 1"] {
            check(pair(wrong), None);
        }
        let (at, message) = pair("1-0").problem(CODES).unwrap();
        assert_eq!(at, "channel");
        assert_eq!(message, "there is no such input; it has \"0-1\", 0, 12");
    }
}
