//! BigInt literals, which are refused.

use super::{Sandbox, ScriptError};

/// Finds BigInt literals such as `1n` in a text that [`Sandbox::check`] has found valid.
///
/// Which digits of a text are a number, and not part of a string, a comment or a pattern, only a whole parser knows. So
/// QuickJS is asked: `1_` in the place of `1n` is an error exactly where that is a literal.
pub(super) fn refuse_big_ints(
    sandbox: &Sandbox,
    before: &str,
    text: &str,
    after: &str,
) -> Result<(), ScriptError> {
    let Some(changed) = with_other_suffixes(text) else {
        return Ok(());
    };
    match sandbox.check(before, &changed, after) {
        Err(ScriptError::Thrown { place, .. }) => Err(ScriptError::Thrown {
            place,
            text: "there are no BigInts (such as `1n`) here; numbers are 64-bit floats".into(),
        }),
        other => other,
    }
}

/// The text with `_` for the last `n` of everything that might be a BigInt literal; none if there is nothing.
fn with_other_suffixes(text: &str) -> Option<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$');
    let mut changed = String::new();
    let mut copied = 0;
    for word in text.split(|c| !is_word(c)) {
        if word.starts_with(|c: char| c.is_ascii_digit()) && word.ends_with('n') {
            let end = word.as_ptr() as usize - text.as_ptr() as usize + word.len();
            changed.push_str(&text[copied..end - 1]);
            changed.push('_');
            copied = end;
        }
    }
    (copied > 0).then(|| changed + &text[copied..])
}

#[cfg(test)]
mod tests {
    use crate::flow::script::FunctionBody;

    #[test]
    fn big_ints_are_refused_and_what_looks_like_them_is_not() {
        let check = |text: &str, expected: &str| {
            let said =
                FunctionBody::parse(text).map_or_else(|error| error.to_string(), |_| "".into());
            assert_eq!(said, expected, "{text}");
        };
        let refused = |column: u32| {
            format!(
                "JavaScript, line 1, column {column}: there are no BigInts (such as `1n`) here; numbers are 64-bit floats"
            )
        };
        for literal in ["1n", "0xffn", "0b1n", "0o7n", "1_000n", "0n"] {
            check(&format!("return {literal};"), &refused(8));
        }
        check("return '1n' + 2n;", &refused(15));
        check("return `${3n}`;", &refused(11));
        check("return\u{a0}1n", &refused(9));
        check("/* 1n */ return /2n/.test(3n)", &refused(27));
        for harmless in [
            "return '1n';",
            "return \"12n 0xfn\"; // 5n",
            "return `1n ${'2n'}`;",
            "return /1n[1n-z]/.test('é1n');",
            "const a1n = 1, $1n = 2, _1n = 3, é1n = 4; return a1n + $1n + _1n + é1n;",
            "return { '1n': 1 };",
            "return '\\x41n' + '\\u00411n';",
        ] {
            check(harmless, "");
        }
    }
}
