//! JUnit's XML, as build servers read it: a suite per flow, a case per test.

use std::fmt::Write;
use std::time::Duration;

use super::report;
use super::run::Outcome;
use super::suite::Finding;

/// The whole file. `missing` are the flows that should have tests and have none.
pub fn file(outcomes: &[Outcome], findings: &[Finding], missing: &[String]) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    let mut flows: Vec<&str> = outcomes.iter().map(|outcome| &*outcome.flow).collect();
    flows.extend(findings.iter().map(|finding| &*finding.flow));
    flows.sort_unstable();
    flows.dedup();
    for flow in flows {
        let outcomes: Vec<&Outcome> = outcomes.iter().filter(|it| it.flow == flow).collect();
        let errors: Vec<&Finding> = findings
            .iter()
            .filter(|it| it.flow == flow && it.has_errors())
            .collect();
        suite(flow, &outcomes, &errors, &mut text);
    }
    for flow in missing {
        let flow = escaped(flow);
        let _ = writeln!(
            text,
            "  <testsuite name=\"{flow}\" tests=\"1\" failures=\"1\" errors=\"0\" time=\"0\">\n    <testcase classname=\"{flow}\" \
             name=\"has a test\"><failure message=\"this flow has no test, and --require asks for one\"/></testcase>\n  </testsuite>"
        );
    }
    text + "</testsuites>\n"
}

fn suite(flow: &str, outcomes: &[&Outcome], errors: &[&Finding], text: &mut String) {
    let failed = outcomes.iter().filter(|it| !it.has_passed()).count();
    let took: Duration = outcomes.iter().map(|it| it.took).sum();
    let seconds = took.as_secs_f64();
    let flow = escaped(flow);
    let _ = writeln!(
        text,
        "  <testsuite name=\"{flow}\" tests=\"{}\" failures=\"{failed}\" errors=\"{}\" time=\"{seconds:.6}\">",
        outcomes.len() + errors.len(),
        errors.len(),
    );
    for finding in errors {
        let said: Vec<String> = finding
            .diagnostics
            .iter()
            .map(ToString::to_string)
            .collect();
        let _ = writeln!(
            text,
            "    <testcase classname=\"{flow}\" name=\"check\"><error message=\"mistakes in the flow or its tests\">{}</error></testcase>",
            escaped(&said.join("\n"))
        );
    }
    for outcome in outcomes {
        case(&flow, outcome, text);
    }
    *text += "  </testsuite>\n";
}

fn case(flow: &str, outcome: &Outcome, text: &mut String) {
    let _ = write!(
        text,
        "    <testcase classname=\"{flow}\" name=\"{}\" file=\"{}\" line=\"{}\" time=\"{:.6}\"",
        escaped(&outcome.test),
        escaped(outcome.file()),
        outcome.line(),
        outcome.took.as_secs_f64()
    );
    let Some(first) = outcome.unmet.first() else {
        *text += "/>\n";
        return;
    };
    let _ = writeln!(
        text,
        "><failure message=\"{}\">{}</failure></testcase>",
        escaped(&first.headline),
        escaped(&report::failure(outcome, false))
    );
}

/// Text for XML 1.0; characters that it cannot have at all (section 2.2) become U+FFFD.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(c),
            '\r' => escaped.push_str("&#13;"),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_xml_cannot_have_is_escaped_or_replaced() {
        let check = |text: &str, expected: &str| assert_eq!(escaped(text), expected);
        check(
            "a < b && \"c\" > d",
            "a &lt; b &amp;&amp; &quot;c&quot; &gt; d",
        );
        check("line\nnext\tü", "line\nnext\tü");
        check("\u{0}\u{1b}[31m\u{ffff}", "\u{fffd}\u{fffd}[31m\u{fffd}");
        check("]]>", "]]&gt;");
    }
}
