//! Flow files that change while a device runs: what is changed and good is to be swapped in, and nothing else happens.
//!
//! Files are looked at once a second (`stat`: no events to miss, no descriptor to lose on a network share). One counts as changed when
//! it has been the same for one look, so that half-written ones are passed over; asked for it, all are read at once.
//! Whatever is wrong with a file, its flow runs on as it is. So it does when the file is gone, until the next start: a file that
//! is deleted by mistake must not stop a pump.
//!
//! Must not: stop a flow.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;

use crate::flow::directory::{self, FlowText};
use crate::flow::site::{Renewed, SiteError};
use crate::flow::{Diagnostic, Graph, Severity, Site, Variables};
use crate::runtime::Counters;
use crate::runtime::driver::{ChangeError, Flows, NewFlow, chain};
use crate::state_files::StateDirectory;

#[cfg(test)]
mod tests;

/// How often files are looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A file that was changed so shortly before may have been changed again within the steps of its time stamp, of up to two seconds.
const FRESH: Duration = Duration::from_secs(3);
/// So it is read again in so many looks.
const READ_AGAIN: u8 = 3;

/// The values that this device gives to the variables of a flow.
pub type VariablesOf = dyn Fn(&str) -> Variables + Send + Sync;

/// The flow files of a device, and the flows that run.
pub struct FlowFiles {
    path: PathBuf,
    variables: Arc<VariablesOf>,
    site: Site,
    seen: BTreeMap<PathBuf, Seen>,
    /// What was said of the files when they were checked last.
    said: HashSet<String>,
    /// Flows whose files were said to be bad.
    bad: BTreeSet<String>,
    /// What was said last about their directory.
    trouble: Option<String>,
}

/// A flow file as it was seen.
#[derive(Default)]
struct Seen {
    /// At the last look; none if it was not there.
    last: Option<Print>,
    /// When it was read last.
    read: Option<Print>,
    text: Option<Result<String, Unreadable>>,
    read_again: u8,
    /// It has been told that it is gone.
    is_told: bool,
}

/// Why a file could not be read. It is news only if it is another reason.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Unreadable {
    kind: io::ErrorKind,
    reason: String,
}

/// What tells that a file has changed without reading it; of one that cannot be looked at, why.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Print {
    File {
        device: u64,
        inode: u64,
        length: u64,
        modified: (i64, i64),
        changed: (i64, i64),
    },
    None(io::ErrorKind),
}

impl Print {
    fn of(path: &Path) -> Print {
        match path.metadata() {
            Ok(data) => Print::File {
                device: data.dev(),
                inode: data.ino(),
                length: data.len(),
                modified: (data.mtime(), data.mtime_nsec()),
                changed: (data.ctime(), data.ctime_nsec()),
            },
            Err(error) => Print::None(error.kind()),
        }
    }
}

impl Seen {
    /// Looks at a file, and reads it if it has changed and rests. Says whether there is news in it.
    fn look(&mut self, path: &Path, is_asked: bool) -> bool {
        let print = Print::of(path);
        let rests = self.last.as_ref() == Some(&print);
        self.last = Some(print.clone());
        self.is_told = false;
        let is_other = self.read.as_ref() != Some(&print);
        if !is_asked && (!rests || (!is_other && self.read_again == 0)) {
            return false;
        }
        let file = directory::read(path.to_owned());
        let now = Print::of(path);
        if now != print {
            // It is being written.
            self.last = Some(now);
            return false;
        }
        if is_other {
            self.read_again = if is_fresh(path) { READ_AGAIN } else { 0 };
        } else {
            self.read_again = self.read_again.saturating_sub(1);
        }
        self.read = Some(print);
        let text = file.text.map_err(|error| Unreadable {
            kind: error.kind(),
            reason: error.to_string(),
        });
        let is_news = self.text.as_ref() != Some(&text);
        self.text = Some(text);
        is_news
    }
}

fn is_fresh(path: &Path) -> bool {
    let modified = path.metadata().and_then(|data: Metadata| data.modified());
    let age = modified.map(|modified| SystemTime::now().duration_since(modified));
    // One from the future is fresh too.
    !matches!(age, Ok(Ok(age)) if age >= FRESH)
}

impl FlowFiles {
    /// Reads and checks the flow files at `path`: one, or all in the directory there. If they cannot be listed, there are none for now.
    pub fn start(path: &Path, variables: Arc<VariablesOf>) -> (FlowFiles, Result<(), SiteError>) {
        let mut files = FlowFiles {
            path: path.into(),
            variables,
            site: Site::default(),
            seen: BTreeMap::new(),
            said: HashSet::new(),
            bad: BTreeSet::new(),
            trouble: None,
        };
        let listed = directory::find(path).map_err(|source| SiteError::of(path, source));
        let found = match listed {
            Ok(found) => found,
            Err(error) => {
                files.trouble = Some(chain(&error));
                return (files, Err(error));
            }
        };
        for path in found {
            let mut seen = Seen::default();
            seen.look(&path, true);
            files.seen.insert(path, seen);
        }
        let texts = files.texts();
        files.site = Site::from_files(&texts, |flow| (files.variables)(flow));
        files.said = files
            .site
            .diagnostics
            .iter()
            .map(ToString::to_string)
            .collect();
        files.bad = wrong_flows(&files.site.diagnostics);
        (files, Ok(()))
    }

    /// The flows that run.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// Puts the last good copies of flows in the places of files that are bad, or of all if the files cannot be listed. Gives their names.
    /// Copies of flows that have no file any more are forgotten.
    pub fn fall_back(&mut self, directory: &mut StateDirectory) -> Vec<String> {
        let named = self.seen.keys().map(|path| directory::flow_name(path));
        let mut names: Vec<String> = named.collect();
        if self.trouble.is_some() && self.path.exists() {
            names = directory.copies();
        } else if !names.is_empty() {
            for flow in directory.copies() {
                if !names.contains(&flow) {
                    directory.forget_copy(&flow);
                }
            }
        }
        names.retain(|name| self.site.text_of(name).is_none());
        names.retain(|name| match directory.copy_of(name) {
            Ok(Some((path, text))) => {
                let copy = FlowText {
                    path,
                    name: name.clone(),
                    text: Ok(text),
                };
                self.site.add_copy(&copy, |flow| (self.variables)(flow))
            }
            Ok(None) => false,
            Err(error) => {
                tracing::warn!("{}", chain(&error));
                false
            }
        });
        names
    }

    /// Keeps the flows that run as their files are, as last good copies.
    pub fn keep_copies(&self, copies: &Copies) {
        for flow in &self.site.flows {
            let text = self.site.text_of(flow.name());
            let in_file = self.text_in_file(flow.name());
            if let Some(text) = text.filter(|text| in_file == Some(text)) {
                copies.keep(flow.name(), text);
            }
        }
    }

    /// Looks at the files once. What has changed and is good is given to `swap`, all at once; after an error all runs as before.
    pub fn look(
        &mut self,
        is_asked: bool,
        swap: impl FnOnce(Vec<Arc<Graph>>) -> Result<(), ChangeError>,
        copies: Option<&Copies>,
    ) {
        let Some(renewed) = self.find_changes(is_asked) else {
            return;
        };
        self.say(&renewed.site.diagnostics, is_asked);
        let Renewed { mut site, news } = renewed;
        self.say_good_again(&site.diagnostics);
        if news.is_empty() {
            return;
        }
        match swap(news.clone()) {
            Ok(()) => {}
            Err(ChangeError::Stopping) => return,
            Err(error) => {
                return tracing::error!(
                    "the changed flows are not taken up, and all flows run on as they are: {}",
                    chain(&error)
                );
            }
        }
        for flow in &news {
            let name = flow.name();
            let what = match self.site.text_of(name) {
                Some(_) => "was changed, and goes on as its file is now",
                None => "was added, and runs",
            };
            tracing::info!("flow `{name}` {what}");
        }
        site.diagnostics.clear();
        self.site = site;
        if let Some(copies) = copies {
            for flow in &news {
                if let Some(text) = self.site.text_of(flow.name()) {
                    copies.keep(flow.name(), text);
                }
            }
        }
    }

    /// The flows as they should be now, if there is news in any file.
    fn find_changes(&mut self, is_asked: bool) -> Option<Renewed> {
        let found = match directory::find(&self.path) {
            Ok(found) => found,
            Err(error) => {
                self.say_trouble(error);
                return None;
            }
        };
        if self.trouble.take().is_some() {
            tracing::info!("the flows in {} can be read again", self.path.display());
        }
        let mut is_news = is_asked;
        for path in &found {
            let seen = self.seen.entry(path.clone()).or_default();
            is_news |= seen.look(path, is_asked);
        }
        self.note_gone(&found);
        is_news.then(|| {
            let changed: Vec<FlowText> = self
                .texts()
                .into_iter()
                .filter_map(|file| self.changed(file))
                .collect();
            let variables = |flow: &str| (self.variables)(flow);
            self.site.renewed(&changed, found.len(), variables)
        })
    }

    /// A file that is not what runs. One that is half written may be a good flow by chance, but not the one that was meant.
    fn changed(&self, mut file: FlowText) -> Option<FlowText> {
        if let (Ok(text), Some(running)) = (&file.text, self.site.text_of(&file.name)) {
            if text == running {
                return None;
            }
            if running.starts_with(text) && !text.ends_with('\n') {
                file.text = Err(io::Error::other(
                    "it is the beginning of what runs and ends within a line, so it seems to be half written",
                ));
            }
        }
        Some(file)
    }

    /// Tells of files that are gone, at the second look without them.
    fn note_gone(&mut self, found: &[PathBuf]) {
        let site = &self.site;
        self.seen.retain(|path, seen| {
            if found.contains(path) {
                return true;
            }
            let name = directory::flow_name(path);
            let was_there = seen.last.take().is_some();
            if !was_there
                && !std::mem::replace(&mut seen.is_told, true)
                && site.text_of(&name).is_some()
            {
                tracing::warn!(
                    "{} is gone; flow `{name}` runs on as it was, until tidegate is started again",
                    path.display()
                );
            }
            // If it comes back, it is read.
            seen.read = None;
            seen.text = None;
            site.text_of(&name).is_some()
        });
    }

    fn say_trouble(&mut self, error: io::Error) {
        let problem = chain(&SiteError::of(&self.path, error));
        if self.trouble.as_ref() != Some(&problem) {
            tracing::error!("{problem}; the flows run on as they are");
            self.trouble = Some(problem);
        }
    }

    /// Says what was not said before, or all if someone asked.
    fn say(&mut self, diagnostics: &[Diagnostic], is_asked: bool) {
        let mut said = HashSet::new();
        let mut wrong = Vec::new();
        for diagnostic in diagnostics {
            let text = diagnostic.to_string();
            if is_asked || !self.said.contains(&text) {
                match diagnostic.severity {
                    Severity::Error => {
                        tracing::error!("{text}");
                        let flow = directory::flow_name(Path::new(&diagnostic.source.path));
                        if !wrong.contains(&flow) {
                            wrong.push(flow);
                        }
                    }
                    Severity::Warning => tracing::warn!("{text}"),
                }
            }
            said.insert(text);
        }
        for flow in wrong {
            match self.site.text_of(&flow) {
                Some(_) => tracing::error!("flow `{flow}` runs on as it was before"),
                None => tracing::error!("flow `{flow}` does not run"),
            }
        }
        self.said = said;
    }

    /// Says which files were bad and are now what runs. Of those that are changed besides, that is said.
    fn say_good_again(&mut self, diagnostics: &[Diagnostic]) {
        for flow in self.good_again(diagnostics) {
            tracing::info!("the file of flow `{flow}` is good again, and is what runs");
        }
        self.bad = wrong_flows(diagnostics);
    }

    fn good_again(&self, diagnostics: &[Diagnostic]) -> Vec<String> {
        let wrong = wrong_flows(diagnostics);
        let no_more = self.bad.difference(&wrong);
        let runs = |flow: &&String| {
            let text = self.site.text_of(flow);
            text.is_some() && text == self.text_in_file(flow)
        };
        no_more.filter(runs).cloned().collect()
    }

    fn texts(&self) -> Vec<FlowText> {
        let texts = self.seen.iter().filter_map(|(path, seen)| {
            let text = seen.text.clone()?;
            Some(FlowText {
                path: path.clone(),
                name: directory::flow_name(path),
                text: text.map_err(|it| io::Error::new(it.kind, it.reason)),
            })
        });
        texts.collect()
    }

    fn text_in_file(&self, flow: &str) -> Option<&str> {
        let mut files = self.seen.iter();
        let (_, seen) = files.find(|(path, _)| directory::flow_name(path) == flow)?;
        seen.text.as_ref()?.as_deref().ok()
    }
}

/// The flows of files with errors in them.
fn wrong_flows(diagnostics: &[Diagnostic]) -> BTreeSet<String> {
    let errors = diagnostics.iter().filter(|it| it.is_error());
    errors
        .map(|error| directory::flow_name(Path::new(&error.source.path)))
        .collect()
}

/// Where last good copies are kept.
#[derive(Clone)]
pub struct Copies {
    pub directory: Arc<Mutex<StateDirectory>>,
    pub counters: Arc<Counters>,
}

impl Copies {
    fn keep(&self, flow: &str, text: &str) {
        let mut directory = self
            .directory
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match directory.keep_copy(flow, text) {
            Ok(bytes) => self.counters.state_bytes.add(bytes),
            Err(error) => {
                self.counters.state_errors.add(1);
                tracing::error!(
                    "flow `{flow}` has no last good copy as it runs now: {}",
                    chain(&error)
                );
            }
        }
    }

    /// What a flow remembered that has not run since the start.
    fn remembered(&self, flow: &str) -> Option<crate::runtime::Checkpoint> {
        let directory = self
            .directory
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        directory.read(flow)
    }
}

/// Watches the files until nobody can ask any more. A message in `asked` is a wish to look at once.
pub async fn watch(
    mut files: FlowFiles,
    flows: Flows,
    copies: Option<Copies>,
    mut asked: mpsc::Receiver<()>,
) {
    if let Some(copies) = copies.clone() {
        let kept = tokio::task::spawn_blocking(move || {
            files.keep_copies(&copies);
            files
        });
        files = match kept.await {
            Ok(files) => files,
            Err(error) => return say_fault(&error),
        };
    }
    loop {
        let is_asked = tokio::select! {
            wish = asked.recv() => match wish {
                Some(()) => true,
                None => return,
            },
            () = tokio::time::sleep(LOOK_EVERY) => false,
        };
        let (flows, copies) = (flows.clone(), copies.clone());
        // Disks and engines are waited for.
        let looked = tokio::task::spawn_blocking(move || {
            if is_asked {
                tracing::info!(
                    "SIGHUP: the flow files are read again; tidegate.toml is read at a start only"
                );
            }
            let swap = |news| put(&flows, news, copies.as_ref());
            files.look(is_asked, swap, copies.as_ref());
            files
        });
        files = match looked.await {
            Ok(files) => files,
            Err(error) => return say_fault(&error),
        };
    }
}

fn say_fault(error: &tokio::task::JoinError) {
    // At the stop it is told to end.
    if !error.is_cancelled() {
        tracing::error!(
            "flow files are not watched any more, which is a fault of Tidegate: {error}"
        );
    }
}

fn put(flows: &Flows, news: Vec<Arc<Graph>>, copies: Option<&Copies>) -> Result<(), ChangeError> {
    let running = flows.names();
    let news = news.into_iter().map(|graph| {
        let name = graph.name().to_string();
        let is_new = !running.contains(&name);
        let remembered = copies
            .filter(|_| is_new)
            .and_then(|it| it.remembered(&name));
        NewFlow {
            remembered: remembered.map(Arc::new),
            graph,
        }
    });
    flows.put(news.collect())
}
