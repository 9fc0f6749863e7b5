//! All flows of a device: read, checked one by one, and checked against each other.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::board::Pin;
use crate::flow::check::advice::bus_problem;
use crate::flow::diagnostic::{Diagnostic, Report, Severity, Source};
use crate::flow::directory::FlowText;
use crate::flow::graph::GraphNode;
use crate::flow::links::{self, Ways};
use crate::flow::{Graph, Variables, check, directory};

/// The flows of a device and what is wrong with them.
#[derive(Debug, Default)]
pub struct Site {
    /// The valid ones, by name. Two that want the same pin, or whose links lead round in a circle, are both valid as files, but
    /// only the first is here.
    pub flows: Vec<Arc<Graph>>,
    /// The text of each of them.
    sources: Vec<Arc<Source>>,
    /// How many files there are.
    pub files: usize,
    pub diagnostics: Vec<Diagnostic>,
}

/// The place of the flows cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read flows from {}; check the path; without one it is `path` of [flows] in tidegate.toml", path.display())]
pub struct SiteError {
    path: PathBuf,
    source: std::io::Error,
}

impl SiteError {
    /// The flows at `path` cannot be listed.
    pub fn of(path: &Path, source: std::io::Error) -> SiteError {
        SiteError {
            path: path.into(),
            source,
        }
    }
}

impl Site {
    /// Reads and checks the flow file at `path`, or all in the directory there. A file that cannot be read is a problem
    /// like those in it.
    pub fn load(path: &Path, variables: impl Fn(&str) -> Variables) -> Result<Site, SiteError> {
        let mut site = Site::default();
        site.load_more(path, variables)?;
        site.check_links();
        Ok(site)
    }

    /// The same, beside the flows that are here already.
    pub fn load_more(
        &mut self,
        path: &Path,
        variables: impl Fn(&str) -> Variables,
    ) -> Result<(), SiteError> {
        let files = directory::find(path).map_err(|source| SiteError::of(path, source))?;
        for file in files {
            self.add_file(&directory::read(file), &variables);
        }
        Ok(())
    }

    /// Checks flow files that have been read.
    pub fn from_files(files: &[FlowText], variables: impl Fn(&str) -> Variables) -> Site {
        let mut site = Site::default();
        for file in files {
            site.add_file(file, &variables);
        }
        site.check_links();
        site
    }

    fn add_file(&mut self, file: &FlowText, variables: impl Fn(&str) -> Variables) {
        let (graph, report) = check_file(file, variables);
        self.add(graph, report);
    }

    /// Adds a flow in the place of its file, which is bad. It is not added if it is bad too; that is not told. Says whether it was.
    pub fn add_copy(&mut self, file: &FlowText, variables: impl Fn(&str) -> Variables) -> bool {
        let (graph, mut report) = check_file(file, variables);
        let graph = graph.filter(|graph| self.fits(graph, &mut report));
        let Some(graph) = graph else { return false };
        let place = self
            .flows
            .partition_point(|flow| **flow.name() < *file.name);
        self.flows.insert(place, Arc::new(graph));
        self.sources.insert(place, report.source().clone());
        true
    }

    /// Adds what somebody who knows more than the flows has to say of a node: how bad, what, and what to do.
    pub fn judge_nodes(
        &mut self,
        judge: impl Fn(&Graph, &GraphNode) -> Vec<(Severity, String, Option<String>)>,
    ) {
        for (flow, source) in self.flows.iter().zip(&self.sources) {
            let mut report = Report::over(source.clone());
            for node in flow.nodes() {
                for (severity, message, help) in judge(flow, node) {
                    match severity {
                        Severity::Error => report.error(node.span.clone(), message, help),
                        Severity::Warning => report.warning(node.span.clone(), message, help),
                    }
                }
            }
            self.diagnostics.extend(report.into_diagnostics());
        }
    }

    /// The text of a flow that is here.
    pub fn text_of(&self, flow: &str) -> Option<&str> {
        let place = self.flows.iter().position(|it| **it.name() == *flow)?;
        Some(&self.sources[place].text)
    }

    /// The flows after some of their files have changed: those of `changed` that are good, by themselves and beside the others, and
    /// otherwise the ones that are here. What runs goes before what is new. `files` is how many there are now.
    pub fn renewed(
        &self,
        changed: &[FlowText],
        files: usize,
        variables: impl Fn(&str) -> Variables,
    ) -> Renewed {
        let mut diagnostics = Vec::new();
        let mut candidates = Vec::new();
        for file in changed {
            let (graph, report) = check_file(file, &variables);
            match graph {
                Some(graph) => candidates.push((Arc::new(graph), report)),
                None => diagnostics.extend(report.into_diagnostics()),
            }
        }
        // One that does not fit stays as it is, and then another one may not fit.
        let mut misfits = Vec::new();
        let (mut site, mut news) = loop {
            match self.with(&candidates) {
                Ok(found) => break found,
                Err(misfit) => misfits.push(candidates.remove(misfit.place)),
            }
        };
        // What was in the way of one may not fit itself.
        let mut reasons = Vec::new();
        let mut is_settled = misfits.is_empty();
        while !is_settled {
            reasons.clear();
            is_settled = true;
            for candidate in std::mem::take(&mut misfits) {
                candidates.push(candidate);
                match self.with(&candidates) {
                    Ok(found) => {
                        (site, news) = found;
                        is_settled = false;
                    }
                    Err(misfit) => {
                        reasons.extend(misfit.diagnostics);
                        misfits.extend(candidates.pop());
                    }
                }
            }
        }
        diagnostics.append(&mut reasons);
        site.files = files;
        site.check_links();
        diagnostics.append(&mut site.diagnostics);
        site.diagnostics = diagnostics;
        Renewed { site, news }
    }

    /// The flows that are here with candidates in the place of those of their names; or the first one that does not fit, and why.
    fn with(&self, candidates: &[(Arc<Graph>, Report)]) -> Result<(Site, Vec<Arc<Graph>>), Misfit> {
        let is_replaced = |flow: &Arc<Graph>| {
            let mut names = candidates.iter().map(|(graph, _)| graph.name());
            names.any(|name| name == flow.name())
        };
        let mut site = Site::default();
        for (flow, source) in self.flows.iter().zip(&self.sources) {
            if !is_replaced(flow) {
                site.flows.push(flow.clone());
                site.sources.push(source.clone());
            }
        }
        let mut news = Vec::new();
        for (place, (graph, of_graph)) in candidates.iter().enumerate() {
            let mut report = Report::over(of_graph.source().clone());
            report.diagnostics.clone_from(&of_graph.diagnostics);
            if !site.fits(graph, &mut report) {
                return Err(Misfit {
                    place,
                    diagnostics: report.into_diagnostics(),
                });
            }
            site.flows.push(graph.clone());
            site.sources.push(of_graph.source().clone());
            site.diagnostics.extend(report.into_diagnostics());
            news.push(graph.clone());
        }
        let mut flows: Vec<_> = site.flows.into_iter().zip(site.sources).collect();
        flows.sort_by(|(a, _), (b, _)| a.name().cmp(b.name()));
        (site.flows, site.sources) = flows.into_iter().unzip();
        Ok((site, news))
    }

    /// Checks flows given by name and text.
    pub fn from_texts<'a>(
        texts: impl IntoIterator<Item = (&'a str, &'a str)>,
        variables: impl Fn(&str) -> Variables,
    ) -> Site {
        let mut site = Site::default();
        for (name, text) in texts {
            let mut report = Report::new(format!("{name}.toml"), text);
            let graph = check(name, &variables(name), &mut report);
            site.add(graph, report);
        }
        site.check_links();
        site
    }

    /// Warns of links that have only one end. To be called when all flows of the device are here; what a flow would be joined
    /// to that is not valid is not known, so then nothing is said.
    pub fn check_links(&mut self) {
        if self.flows.len() == self.files {
            let found = links::loose_ends(&self.flows, &self.sources);
            self.diagnostics.extend(found);
        }
    }

    pub fn has_errors(&self) -> bool {
        self.diagnostics
            .iter()
            .any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    fn add(&mut self, graph: Option<Graph>, mut report: Report) {
        self.files += 1;
        if let Some(graph) = graph
            && self.fits(&graph, &mut report)
        {
            self.flows.push(Arc::new(graph));
            self.sources.push(report.source().clone());
        }
        self.diagnostics.extend(report.into_diagnostics());
    }

    /// Whether a flow can run beside those that are here.
    fn fits(&self, graph: &Graph, report: &mut Report) -> bool {
        if let Some((span, pin, other)) = self.contested_pin(graph) {
            let message =
                format!("{pin} is used by flow `{other}` already, so this flow does not run");
            let help = "each pin belongs to one node; let one flow use it";
            report.error(span, message, Some(help.into()));
            return false;
        }
        self.warn_of_buses(graph, report);
        if let Some(links::Cycle { span, way }) = links::cycle(&self.flows, graph, Ways::Wires) {
            let message = format!("a cycle without a delay: {way}; so this flow does not run");
            let help = "a message would go round for ever; take one of these links away, or put a `delay` on the way";
            report.error(span, message, Some(help.into()));
            return false;
        }
        if let Some(links::Cycle { span, way }) =
            links::cycle(&self.flows, graph, Ways::WiresAndFailures)
        {
            let message = format!("what fails on this way comes round again: {way}");
            let help = "it would go round as long as it fails; name the `nodes` of the `catch`, or put a `delay` on the way";
            report.warning(span, message, Some(help.into()));
        }
        true
    }

    /// Pins of one flow that are on a bus over which another flow reads its sensors.
    fn warn_of_buses(&self, graph: &Graph, report: &mut Report) {
        for other in &self.flows {
            for (pins, sensors) in [(graph, &**other), (&**other, graph)] {
                for (_, pin) in pins.uses().flat_map(|(_, needed)| needed.pins()) {
                    // Those of the EEPROM have been told with the flow itself.
                    if pin.number() > 1
                        && let Some(problem) = bus_problem(pin, sensors)
                    {
                        let (pins, sensors) = (pins.name(), sensors.name());
                        let message = format!("flow `{pins}` uses {problem} by flow `{sensors}`");
                        report.warning(0..0, message, Some("use another pin".into()));
                    }
                }
            }
        }
    }

    /// Where the name of the node stands that wants it, the pin, and the flow that has it.
    fn contested_pin(&self, graph: &Graph) -> Option<(Range<usize>, Pin, String)> {
        let users: HashMap<Pin, &Graph> = self
            .flows
            .iter()
            .flat_map(|flow| {
                let pins = flow.uses().flat_map(|(_, needed)| needed.pins());
                pins.map(|(_, pin)| (pin, &**flow))
            })
            .collect();
        graph.uses().find_map(|(node, needed)| {
            let mut pins = needed.pins().into_iter().map(|(_, pin)| pin);
            let (pin, other) = pins.find_map(|pin| Some((pin, users.get(&pin)?)))?;
            let other = other.name().to_string();
            let span = graph.nodes()[usize::from(node.0)].span.clone();
            Some((span, pin, other))
        })
    }
}

/// A candidate that does not fit beside the other flows.
struct Misfit {
    /// Its place among the candidates.
    place: usize,
    diagnostics: Vec<Diagnostic>,
}

/// What comes of changed files.
#[derive(Debug)]
pub struct Renewed {
    /// All flows, and what is wrong with the changed files.
    pub site: Site,
    /// Those that are new, or others than before.
    pub news: Vec<Arc<Graph>>,
}

fn check_file(file: &FlowText, variables: impl Fn(&str) -> Variables) -> (Option<Graph>, Report) {
    let text = file.text.as_ref().map_or("", String::as_str);
    let mut report = Report::new(file.path.display().to_string(), text);
    let graph = match &file.text {
        Ok(_) => check(&file.name, &variables(&file.name), &mut report),
        Err(error) => {
            let help = match error.kind() {
                std::io::ErrorKind::InvalidData => {
                    Some("it is not in UTF-8: save it as UTF-8 in your editor".into())
                }
                std::io::ErrorKind::NotFound => Some("it is a link that leads nowhere".into()),
                _ => None,
            };
            report.error(0..0, format!("the file cannot be read: {error}"), help);
            None
        }
    };
    (graph, report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_on_the_bus_of_another_flows_sensor_is_told() {
        let relay = "[nodes.tick]\ntype = 'inject'\nevery = '1s'\npayload = 1\n[nodes.relay]\ntype = 'gpio out'\nfrom = 'tick'\npin = 4\n";
        let probe = "[nodes.probe]\ntype = 'ds18b20'\ndevice = '28-0316a2795aff'\n[nodes.show]\ntype = 'debug'\nfrom = 'probe'\n";
        for flows in [[("a", relay), ("b", probe)], [("a", probe), ("b", relay)]] {
            let site = Site::from_texts(flows, |_| Variables::default());
            assert_eq!(site.flows.len(), 2);
            let found: Vec<String> = site.diagnostics.iter().map(ToString::to_string).collect();
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(
                found[0].contains("uses GPIO4, which is a pin of the bus one-wire: `probe` is read over it by flow"),
                "{found:?}"
            );
        }
    }

    #[test]
    fn two_flows_cannot_share_a_pin_and_the_first_keeps_it() {
        let flow = "[nodes.door]\ntype = 'gpio in'\npin = 22\n[nodes.show]\ntype = 'debug'\nfrom = 'door'\n";
        let site = Site::from_texts([("a", flow), ("b", flow)], |_| Variables::default());
        assert_eq!(site.flows.len(), 1);
        assert_eq!(
            site.diagnostics
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
            [
                "b.toml:1:8: error: GPIO22 is used by flow `a` already, so this flow does not run \
              (each pin belongs to one node; let one flow use it)"
            ]
        );
    }

    fn problems(flows: &[(&str, &str)]) -> Vec<String> {
        let site = Site::from_texts(flows.iter().copied(), |_| Variables::default());
        site.diagnostics.iter().map(ToString::to_string).collect()
    }

    const SEND: &str = "[nodes.tick]\ntype = 'inject'\nevery = '1s'\n[nodes.go]\ntype = 'link out'\nlink = 'alarms'\nfrom = 'tick'";
    const SHOW: &str = "[nodes.come]\ntype = 'link in'\nlink = 'alarms'\n[nodes.show]\ntype = 'debug'\nfrom = 'come'";

    #[test]
    fn a_link_has_two_ends() {
        let check = |flows: &[(&str, &str)], expected: &[&str]| {
            assert_eq!(problems(flows), expected);
        };
        check(&[("a", SEND), ("b", SHOW)], &[]);
        check(&[("a", SHOW), ("b", SHOW), ("c", SEND), ("d", SEND)], &[]);
        check(&[("a", &format!("{SEND}\n{SHOW}"))], &[]);
        check(
            &[("a", SEND)],
            &[
                "a.toml:4:8: warning: no `link in` reads the link `alarms` (its other end would be: type = \"link in\", \
               link = \"alarms\")",
            ],
        );
        check(
            &[("a", SHOW), ("b", &SEND.replace("alarms", "alarm"))],
            &[
                "a.toml:1:8: warning: no `link out` sends to the link `alarms` (did you mean `alarm`?)",
                "b.toml:4:8: warning: no `link in` reads the link `alarm` (did you mean `alarms`?)",
            ],
        );
        // The other end may be in what is wrong.
        let wrong = problems(&[("a", SHOW), ("b", "[nodes.x]\ntype = 'debgu'")]);
        assert_eq!(wrong.len(), 1, "{wrong:?}");
    }

    #[test]
    fn the_flow_that_closes_a_cycle_of_links_does_not_run() {
        let through = |from: &str, to: &str| {
            format!(
                "[nodes.come]\ntype = 'link in'\nlink = '{from}'\n[nodes.go]\ntype = 'link out'\nlink = '{to}'\nfrom = 'come'\n"
            )
        };
        let (there, back) = (through("x", "y"), through("y", "x"));
        let site = Site::from_texts([("a", &*there), ("b", &*back)], |_| Variables::default());
        assert_eq!(site.flows.len(), 1);
        assert_eq!(&**site.flows[0].name(), "a");
        let found: Vec<String> = site.diagnostics.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "b.toml:1:8: error: a cycle without a delay: b/come -> b/go -> a/come -> a/go -> b/come; so this flow does not \
              run (a message would go round for ever; take one of these links away, or put a `delay` on the way)"
            ]
        );
    }

    #[test]
    fn complaints_that_come_round_through_links_are_told() {
        let complain = "[nodes.refused]\ntype = 'catch'\n[nodes.go]\ntype = 'link out'\nlink = 'errors'\nfrom = 'refused'\n";
        let show = "[nodes.come]\ntype = 'link in'\nlink = 'errors'\n[nodes.show]\ntype = 'debug'\nfrom = 'come'\n";
        let ring = "[nodes.tick]\ntype = 'inject'\nevery = '1s'\n[nodes.ring]\ntype = 'debug'\nfrom = 'tick'\n";
        let apart = format!("{ring}{complain}");
        assert_eq!(problems(&[("a", &apart), ("b", show)]), [""; 0]);
        let round = format!("{show}{complain}");
        let found = problems(&[("b", &round)]);
        assert_eq!(
            found,
            [
                "b.toml:1:8: warning: what fails on this way comes round again: b/come -> b/refused -> b/go -> b/come (it would \
               go round as long as it fails; name the `nodes` of the `catch`, or put a `delay` on the way)"
            ]
        );
        // Through two flows.
        let there = "[nodes.come]\ntype = 'link in'\nlink = 'errors'\n[nodes.on]\ntype = 'link out'\nlink = 'more'\nfrom = 'come'\n";
        let back = format!("{}{complain}", show.replace("'errors'", "'more'"));
        assert_eq!(problems(&[("a", there), ("b", &back)]).len(), 1);
        // A `catch` does not hear of what is behind it, nor of nodes that it does not name.
        let named = round.replace("'catch'", "'catch'\nnodes = []");
        assert_eq!(problems(&[("b", &named)]), [""; 0]);
        let delayed = round.replace(
            "from = 'refused'",
            "from = 'later'\n[nodes.later]\ntype = 'delay'\nby = '1s'\nfrom = 'refused'",
        );
        assert_eq!(problems(&[("b", &delayed)]), [""; 0]);
    }

    #[test]
    fn a_file_by_itself_may_have_the_other_end_of_its_links_elsewhere() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("a.toml");
        std::fs::write(&file, SEND).expect("it can be written");
        let mut site = Site::default();
        site.load_more(&file, |_| Variables::default())
            .expect("it can be read");
        assert_eq!(site.diagnostics, []);
        site.check_links();
        assert_eq!(site.diagnostics.len(), 1);
    }

    /// Which flows are new after files have changed, and what is told. Texts are by name.
    fn renew(
        before: &[(&str, &str)],
        changed: &[(&str, &str)],
    ) -> (Site, Vec<String>, Vec<String>) {
        let site = Site::from_texts(before.iter().copied(), |_| Variables::default());
        assert_eq!(site.flows.len(), before.len(), "{:?}", site.diagnostics);
        let changed: Vec<FlowText> = changed
            .iter()
            .map(|(name, text)| FlowText {
                path: format!("{name}.toml").into(),
                name: (*name).into(),
                text: Ok((*text).into()),
            })
            .collect();
        let renewed = site.renewed(&changed, before.len(), |_| Variables::default());
        let news = renewed.news.iter().map(|flow| flow.name().to_string());
        let told = renewed.site.diagnostics.iter().map(ToString::to_string);
        let (news, told) = (news.collect(), told.collect());
        (renewed.site, news, told)
    }

    fn reads(pin: u8) -> String {
        format!(
            "[nodes.door]\ntype = 'gpio in'\npin = {pin}\n[nodes.show]\ntype = 'debug'\nfrom = 'door'\n"
        )
    }

    #[test]
    fn what_is_good_is_renewed_and_what_is_bad_stays() {
        let before = [("a", &*reads(2)), ("b", &*reads(3)), ("c", &*reads(4))];
        let (site, news, told) = renew(
            &before,
            &[
                ("a", "[nodes.x]\ntype = 'debgu'"),
                ("c", &reads(5)),
                ("d", &reads(6)),
            ],
        );
        assert_eq!(news, ["c", "d"]);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("a.toml:2:8: error"), "{told:?}");
        let names: Vec<_> = site
            .flows
            .iter()
            .map(|flow| flow.name().to_string())
            .collect();
        assert_eq!(names, ["a", "b", "c", "d"]);
        assert_eq!(site.text_of("a"), Some(&*reads(2)));
        assert_eq!(site.text_of("c"), Some(&*reads(5)));
    }

    #[test]
    fn pins_can_be_exchanged_and_what_runs_keeps_its_own() {
        let before = [("a", &*reads(2)), ("b", &*reads(3))];
        let check = |changed: &[(&str, &str)], news: &[&str], told: &[&str]| {
            let (site, found, said) = renew(&before, changed);
            assert_eq!(found, news, "{said:?}");
            assert_eq!(said.len(), told.len(), "{said:?}");
            for (said, told) in said.iter().zip(told) {
                assert!(said.contains(told), "{said}");
            }
            assert!(site.flows.len() >= 2);
        };
        check(&[("a", &reads(3)), ("b", &reads(2))], &["a", "b"], &[]);
        // The first by name would win at a start; here `b` has it.
        check(
            &[("a", &reads(3))],
            &[],
            &["a.toml:1:8: error: GPIO3 is used by flow `b` already"],
        );
        // `b` does not let go of it, for its file is bad; and then `c` may not have what `a` keeps.
        check(
            &[("a", &reads(3)), ("b", "x"), ("c", &reads(2))],
            &[],
            &[
                "b.toml",
                "GPIO3 is used by flow `b`",
                "GPIO2 is used by flow `a`",
            ],
        );
        // `b` keeps what it has when it changes too, and its change is not refused for what is wrong with `a`.
        let changed = format!("# changed\n{}", reads(3));
        check(
            &[("a", &reads(3)), ("b", &changed)],
            &["b"],
            &["a.toml:1:8: error: GPIO3 is used by flow `b` already"],
        );
        // Two new ones: the first has it.
        check(
            &[("c", &reads(7)), ("d", &reads(7))],
            &["c"],
            &["d.toml:1:8: error: GPIO7 is used by flow `c`"],
        );
    }

    #[test]
    fn a_copy_takes_the_place_of_a_bad_file_if_it_fits() {
        let texts = [("a", "x"), ("b", &*reads(3)), ("c", "x")];
        let mut site = Site::from_texts(texts, |_| Variables::default());
        let mut add = |name: &str, text: &str| {
            let copy = FlowText {
                path: name.into(),
                name: name.into(),
                text: Ok(text.into()),
            };
            site.add_copy(&copy, |_| Variables::default())
        };
        assert!(!add("a", &reads(3)), "the pin is taken");
        assert!(!add("a", "y"));
        assert!(add("a", &reads(2)));
        assert!(add("c", &reads(4)));
        let names: Vec<_> = site
            .flows
            .iter()
            .map(|flow| flow.name().to_string())
            .collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(site.text_of("c"), Some(&*reads(4)));
    }

    #[test]
    fn a_link_that_leads_nowhere_is_a_flow_that_cannot_be_read() {
        let directory = tempfile::tempdir().expect("a directory");
        std::os::unix::fs::symlink("nowhere", directory.path().join("a.toml")).expect("made");
        std::os::unix::fs::symlink("nowhere", directory.path().join(".#b.toml")).expect("made");
        std::fs::create_dir(directory.path().join("c.toml")).expect("made");
        let site = Site::load(directory.path(), |_| Variables::default()).expect("it can be read");
        assert_eq!((site.files, site.diagnostics.len()), (1, 1));
        let told = site.diagnostics[0].to_string();
        assert!(told.contains("a link that leads nowhere"), "{told}");
    }

    #[test]
    fn a_directory_gives_its_flows_and_not_their_tests() {
        let directory = tempfile::tempdir().expect("a directory");
        let flow = "[nodes.tick]\ntype = 'inject'\nevery = '1s'\n[nodes.show]\ntype = 'debug'\nfrom = 'tick'\n";
        for name in [
            "b.toml",
            "a.toml",
            "a.test.toml",
            "notes.md",
            ".hidden.toml",
        ] {
            std::fs::write(directory.path().join(name), flow).expect("it can be written");
        }
        std::fs::write(directory.path().join("c.toml"), [0xff, 0xfe]).expect("it can be written");
        let site = Site::load(directory.path(), |_| Variables::default()).expect("it can be read");
        let names: Vec<_> = site
            .flows
            .iter()
            .map(|flow| flow.name().to_string())
            .collect();
        assert_eq!(names, ["a", "b"]);
        assert!(
            site.diagnostics[0].message.contains("cannot be read"),
            "{:?}",
            site.diagnostics
        );
        assert!(Site::load(&directory.path().join("none"), |_| Variables::default()).is_err());
    }
}
