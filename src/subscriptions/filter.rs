//! Topic filters: MQTT 3.1.1, section 4.7.

/// Why a text is no filter.
pub fn problem(filter: &str) -> Option<&'static str> {
    if filter.is_empty() {
        return Some("is empty");
    }
    if filter.len() > usize::from(u16::MAX) {
        return Some("is longer than 65535 bytes");
    }
    if filter.contains('\0') {
        return Some("has a character that MQTT does not allow, U+0000");
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        if level.contains('#') && (level.len() > 1 || levels.peek().is_some()) {
            return Some("has a `#` that is not the whole of its last level");
        }
        if level.contains('+') && level.len() > 1 {
            return Some("has a `+` that is not the whole of its level");
        }
    }
    None
}

/// Whether a topic is among those that a filter means.
pub fn matches(filter: &str, topic: &str) -> bool {
    // 4.7.2: wildcards at the beginning leave out what the broker has for itself.
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut topic = topic.split('/');
    for level in filter.split('/') {
        match (level, topic.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (level, Some(other)) if level == other => {}
            _ => return false,
        }
    }
    topic.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_mean_what_the_standard_says() {
        let check = |filter: &str, topic: &str, expected| {
            assert_eq!(problem(filter), None, "{filter}");
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        };
        check("a/b", "a/b", true);
        check("a/b", "a/b/", false);
        check("a/+", "a/b", true);
        check("a/+", "a/", true);
        check("a/+", "a", false);
        check("a/+", "a/b/c", false);
        check("a/+/c", "a/b/c", true);
        // 4.7.1.2: the level above is included.
        check("a/#", "a", true);
        check("a/#", "a/b/c", true);
        check("#", "a/b", true);
        check("+", "/a", false);
        check("/+", "/a", true);
        check("+/+", "/a", true);
        check("#", "$SYS/uptime", false);
        check("+/uptime", "$SYS/uptime", false);
        check("$SYS/#", "$SYS/uptime", true);
    }

    #[test]
    fn what_is_no_filter_is_told() {
        for filter in ["", "a#", "#/a", "a/#/b", "a+/b", "a\0"] {
            assert!(problem(filter).is_some(), "{filter:?}");
        }
    }
}
