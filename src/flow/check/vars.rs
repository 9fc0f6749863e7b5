//! Variables: what each name stands for in each scope, and putting it into options.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use schemars::Schema;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::flow::diagnostic::{Report, did_you_mean};
use crate::flow::file::FlowFile;
use crate::flow::parts::Expanded;
use crate::flow::schema::SchemaPlace;
use crate::message::{Object, Value};

/// The variables of a flow, and for each part in use its parameters before them.
pub(super) struct Vars<'a> {
    flow: Values<'a>,
    /// By scope.
    parts: HashMap<String, (usize, Values<'a>)>,
    /// Names that something uses; those of a part with the part's place.
    used: HashSet<(Option<usize>, String)>,
}

/// A value as TOML, to stand in for `${name}`, and as a message value, for JavaScript.
type Values<'a> = HashMap<String, (DeValue<'a>, Value)>;

impl<'a> Vars<'a> {
    /// `given` and `texts` hold what the device gives to variables, by name.
    pub(super) fn new(
        file: &FlowFile<'a>,
        given: &DeTable<'a>,
        texts: &'a BTreeMap<String, String>,
    ) -> Vars<'a> {
        let mut flow = Values::new();
        for (name, default) in &file.vars {
            let name: &str = name.get_ref();
            let toml = match texts.get(name) {
                Some(text) => typed(text, default.get_ref()),
                None => given.get(name).unwrap_or(default).get_ref().clone(),
            };
            flow.insert(name.to_owned(), with_value(toml));
        }
        Vars {
            flow,
            parts: HashMap::new(),
            used: HashSet::new(),
        }
    }

    /// Gives each use of a part its parameters.
    pub(super) fn enter_parts(
        &mut self,
        file: &FlowFile<'a>,
        expanded: &Expanded<'a>,
        report: &mut Report,
    ) {
        let mut uses: Vec<_> = expanded.uses.iter().collect();
        // What a part gives to a part inside of it may be a parameter of its own.
        uses.sort_by_key(|(name, _)| (name.matches('/').count(), (*name).clone()));
        for (name, part_use) in uses {
            let mut values = Values::new();
            for (name, default) in &file.parts[part_use.part].vars {
                // A default means the flow's variables, wherever the part is used.
                let (value, scope) = match part_use.with.get(name.get_ref().as_ref()) {
                    Some(given) => (given, &*part_use.outer),
                    None => (default, ""),
                };
                let mut value = value.clone();
                self.substitute_in(&mut value, None, scope, report);
                values.insert(name.get_ref().to_string(), with_value(value.into_inner()));
            }
            self.parts
                .insert(format!("{name}/"), (part_use.part, values));
        }
    }

    /// What JavaScript sees as `vars` in a scope.
    pub(super) fn object(&self, scope: &str) -> Arc<Object> {
        let own = self.parts.get(scope).map(|(_, values)| values);
        let values = self.flow.iter().chain(own.into_iter().flatten());
        let fields = values.map(|(name, (_, value))| (name.as_str().into(), value.clone()));
        let mut object: Object = fields.collect();
        object.sort_keys();
        Arc::new(object)
    }

    /// The options with `${name}` replaced, except in JavaScript, which says `vars.name`.
    pub(super) fn substitute(
        &mut self,
        schema: &Schema,
        options: &DeTable<'a>,
        scope: &str,
        report: &mut Report,
    ) -> DeTable<'a> {
        let mut options = options.clone();
        for (name, value) in options.iter_mut() {
            let schema = SchemaPlace::new(schema).field(name.get_ref());
            self.substitute_in(value, Some(schema), scope, report);
        }
        options
    }

    fn substitute_in(
        &mut self,
        value: &mut Spanned<DeValue<'a>>,
        schema: Option<SchemaPlace<'_>>,
        scope: &str,
        report: &mut Report,
    ) {
        if schema.and_then(SchemaPlace::format) == Some("javascript") {
            return self.note_in_javascript(value, scope, report);
        }
        let span = value.span();
        match value.get_mut() {
            DeValue::String(text) if text.contains("${") => {
                if let Some(replaced) = self.replaced(&text.clone(), span, scope, report) {
                    *value.get_mut() = replaced;
                }
            }
            DeValue::Array(items) => {
                for item in items.iter_mut() {
                    self.substitute_in(item, schema.map(SchemaPlace::item), scope, report);
                }
            }
            DeValue::Table(table) => {
                for (name, field) in table.iter_mut() {
                    let schema = schema.map(|schema| schema.field(name.get_ref()));
                    self.substitute_in(field, schema, scope, report);
                }
            }
            _ => {}
        }
    }

    /// The value of a text with variables in it. One that is exactly `${name}` keeps the variable's type.
    fn replaced(
        &mut self,
        text: &str,
        span: Range<usize>,
        scope: &str,
        report: &mut Report,
    ) -> Option<DeValue<'a>> {
        if let Some(name) = text
            .strip_prefix("${")
            .and_then(|rest| rest.strip_suffix('}'))
            && !name.contains('}')
        {
            return self
                .variable(name, span, scope, report)
                .map(|(toml, _)| toml);
        }
        let mut filled = String::new();
        let mut rest = text;
        while let Some(open) = rest.find("${") {
            let Some(close) = rest[open..].find('}') else {
                report.error(span, "`${` without its `}`", None);
                return None;
            };
            let name = &rest[open + 2..open + close];
            let (_, value) = self.variable(name, span.clone(), scope, report)?;
            filled.push_str(&rest[..open]);
            match value {
                Value::Text(text) => filled.push_str(&text),
                other => filled.push_str(&other.to_json()),
            }
            rest = &rest[open + close + 1..];
        }
        filled.push_str(rest);
        Some(DeValue::String(filled.into()))
    }

    fn variable(
        &mut self,
        name: &str,
        span: Range<usize>,
        scope: &str,
        report: &mut Report,
    ) -> Option<(DeValue<'a>, Value)> {
        self.note_use(name, scope);
        let own = self.parts.get(scope).map(|(_, values)| values);
        let found = own
            .and_then(|own| own.get(name))
            .or_else(|| self.flow.get(name));
        if let Some(found) = found {
            return Some(found.clone());
        }
        let known = own.into_iter().flatten().chain(&self.flow);
        let help = did_you_mean(name, known.map(|(name, _)| name.as_str()))
            .unwrap_or_else(|| format!("give it a default: [vars] {name} = ..."));
        report.error(span, format!("there is no variable `{name}`"), Some(help));
        None
    }

    fn note_use(&mut self, name: &str, scope: &str) {
        let owner = match self.parts.get(scope) {
            Some((part, values)) if values.contains_key(name) => Some(*part),
            _ => None,
        };
        self.used.insert((owner, name.to_owned()));
    }

    fn note_in_javascript(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        scope: &str,
        report: &mut Report,
    ) {
        let Some(text) = value.get_ref().as_str() else {
            return;
        };
        if text.contains("${") && !text.contains('`') {
            let help = "inside JavaScript a variable is written `vars.NAME`";
            report.error(
                value.span(),
                "`${...}` is not replaced inside JavaScript",
                Some(help.into()),
            );
        }
        let names = text
            .split("vars")
            .skip(1)
            .map(|rest| rest.trim_start_matches(['.', '[', '"', '\'', '?', ' ']));
        for name in names {
            let end = name
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(name.len());
            match &name[..end] {
                "" => self.note_all(scope),
                name => self.note_use(name, scope),
            }
        }
        self.warn_of_slips(text, value.span(), scope, report);
    }

    /// Slips in JavaScript that nobody would see at run time: a variable that is not there is `undefined`, and an expression
    /// that sets what it should compare is as true as what it sets.
    fn warn_of_slips(&self, text: &str, span: Range<usize>, scope: &str, report: &mut Report) {
        let own = self.parts.get(scope).map(|(_, values)| values);
        let known = || {
            let known = own.into_iter().flatten().chain(&self.flow);
            known.map(|(name, _)| name.as_str())
        };
        let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$');
        for (place, _) in text.match_indices("vars.") {
            let rest = &text[place + "vars.".len()..];
            let name = &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())];
            let is_another = text[..place].ends_with(|c| is_word(c) || c == '.');
            if !is_another && !name.is_empty() && !known().any(|known| known == name) {
                let help = did_you_mean(name, known())
                    .unwrap_or_else(|| format!("give it a default: [vars] {name} = ..."));
                let message =
                    format!("there is no variable `{name}`: `vars.{name}` is `undefined`");
                report.warning(span.clone(), message, Some(help));
            }
        }
        for name in ["payload", "topic"] {
            let rest = text.trim_start().strip_prefix(name).unwrap_or_default();
            let rest = rest.trim_start().strip_prefix('=').unwrap_or_default();
            if !rest.is_empty() && !rest.starts_with(['=', '>']) {
                let message = format!("`=` sets `{name}` here, and is as true as what it sets");
                report.warning(span.clone(), message, Some("`===` compares".into()));
            }
        }
    }

    /// `vars` itself is used, as in `const { warm } = vars`: nobody can tell which of them.
    fn note_all(&mut self, scope: &str) {
        let own = self.parts.get(scope).map(|(_, values)| values);
        let names: Vec<String> = own
            .into_iter()
            .flatten()
            .chain(&self.flow)
            .map(|(name, _)| name.clone())
            .collect();
        for name in names {
            self.note_use(&name, scope);
        }
    }

    pub(super) fn warn_of_unused(&self, file: &FlowFile<'a>, report: &mut Report) {
        let parts = file.parts.iter().enumerate();
        let in_use: HashSet<usize> = self.parts.values().map(|(part, _)| *part).collect();
        let of_parts = parts
            .filter(|(place, _)| in_use.contains(place))
            .map(|(place, part)| (Some(place), &part.vars, "parameter"));
        for (owner, vars, what) in of_parts.chain([(None, &file.vars, "variable")]) {
            for (name, value) in vars {
                if !self.used.contains(&(owner, name.get_ref().to_string())) {
                    let message = format!("the {what} `{}` is not used", name.get_ref());
                    report.warning(name.span().start..value.span().end, message, None);
                }
            }
        }
    }
}

/// Text from the environment with the type of the default that it stands in for; as text, if it does not fit, so that the
/// option that uses it says what it expected.
fn typed<'a>(text: &'a str, default: &DeValue<'_>) -> DeValue<'a> {
    if !default.is_str()
        && let Ok(value) = DeValue::parse(text)
        && matches!(
            value.get_ref(),
            DeValue::Boolean(_) | DeValue::Integer(_) | DeValue::Float(_)
        )
    {
        return value.into_inner();
    }
    DeValue::String(text.into())
}

fn with_value<'a>(toml: DeValue<'a>) -> (DeValue<'a>, Value) {
    let spanned = Spanned::new(0..0, toml.clone());
    let value = serde::Deserialize::deserialize(toml::de::ValueDeserializer::from(spanned));
    (toml, value.unwrap_or(Value::Null))
}
