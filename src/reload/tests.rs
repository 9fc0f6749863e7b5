//! Flow files and what happens to them, one look after the other. No look waits for a clock.

use std::fs;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

fn flow(every: u32) -> String {
    format!(
        "[nodes.tick]\ntype = 'inject'\nevery = '{every}s'\n[nodes.show]\ntype = 'debug'\nfrom = 'tick'\n"
    )
}

const BAD: &str = "[nodes.x]\ntype = 'debgu'\n";

struct Bench {
    parent: TempDir,
    files: FlowFiles,
}

impl Bench {
    /// Flows `a` and `b` run.
    fn new() -> Bench {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("flows");
        fs::create_dir(&directory).unwrap();
        for name in ["a", "b"] {
            fs::write(directory.join(format!("{name}.toml")), flow(1)).unwrap();
        }
        let (files, listed) = FlowFiles::start(&directory, Arc::new(|_| Variables::default()));
        listed.unwrap();
        assert_eq!(files.site().flows.len(), 2);
        Bench { parent, files }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.parent
            .path()
            .join("flows")
            .join(format!("{name}.toml"))
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// As editors do it.
    fn replace(&self, name: &str, text: &str) {
        let new = self.parent.path().join("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.path(name)).unwrap();
    }

    /// The flows that are swapped in at the next look.
    fn look(&mut self) -> Vec<String> {
        self.look_with(false, Ok(()))
    }

    fn look_with(&mut self, is_asked: bool, outcome: Result<(), ChangeError>) -> Vec<String> {
        let mut swapped = Vec::new();
        let swap = |news: Vec<Arc<Graph>>| {
            swapped.extend(news.iter().map(|flow| flow.name().to_string()));
            outcome
        };
        self.files.look(is_asked, swap, None);
        swapped
    }

    /// What has been said since the last look, by its first words.
    fn said(&self) -> usize {
        self.files.said.len()
    }

    fn runs(&self, name: &str, text: &str) -> bool {
        self.files.site().text_of(name) == Some(text)
    }
}

const NONE: [&str; 0] = [];

#[test]
fn a_file_is_taken_up_when_it_has_been_the_same_for_one_look() {
    let mut bench = Bench::new();
    assert_eq!(bench.look(), NONE);
    bench.write("a", &flow(2));
    assert_eq!(bench.look(), NONE, "it may still be written");
    bench.write("a", &(flow(2) + "# more\n"));
    assert_eq!(bench.look(), NONE, "it was");
    assert_eq!(bench.look(), ["a"]);
    assert!(bench.runs("a", &(flow(2) + "# more\n")));
    for _ in 0..5 {
        assert_eq!(bench.look(), NONE, "once");
    }
}

#[test]
fn a_file_that_replaces_another_one_is_a_change_and_the_same_text_is_none() {
    let mut bench = Bench::new();
    bench.replace("a", &flow(2));
    bench.replace("b", &flow(1));
    bench.look();
    assert_eq!(bench.look(), ["a"]);
    bench.replace("c", &flow(3));
    bench.look();
    assert_eq!(bench.look(), ["c"], "a new one");
}

#[test]
fn what_was_written_twice_within_a_step_of_the_time_stamp_is_found() {
    let mut bench = Bench::new();
    bench.write("a", &flow(2));
    bench.look();
    assert_eq!(bench.look(), ["a"]);
    // As if size, inode and time were the same as before.
    bench.write("a", &flow(3));
    let print = Print::of(&bench.path("a"));
    let seen = bench.files.seen.get_mut(&bench.path("a")).unwrap();
    (seen.last, seen.read) = (Some(print.clone()), Some(print));
    assert_eq!(bench.look(), ["a"]);
}

#[test]
fn a_bad_file_that_is_put_right_is_known_to_be_good_again() {
    let mut bench = Bench::new();
    let bad = |bench: &Bench| bench.files.bad.iter().cloned().collect::<Vec<_>>();
    bench.write("a", BAD);
    bench.look();
    assert_eq!(bench.look(), NONE);
    assert_eq!(bad(&bench), ["a"]);
    assert_eq!(
        bench.files.good_again(&[]),
        NONE,
        "the text is not what runs"
    );
    bench.write("a", &flow(1));
    bench.look();
    let path = bench.path("a");
    let seen = bench.files.seen.get_mut(&path).unwrap();
    seen.look(&path, true);
    assert_eq!(bench.files.good_again(&[]), ["a"]);
    assert_eq!(bench.look_with(true, Ok(())), NONE, "it is what runs");
    assert_eq!(bad(&bench), NONE);
    assert_eq!(bench.files.good_again(&[]), NONE, "said once");
}

#[test]
fn an_old_file_is_not_read_again() {
    let mut bench = Bench::new();
    let path = bench.path("a");
    bench.look();
    for seen in bench.files.seen.values_mut() {
        seen.read_again = 0;
    }
    // It would be found if it were read.
    bench.write("a", &flow(2));
    let print = Print::of(&path);
    let seen = bench.files.seen.get_mut(&path).unwrap();
    (seen.last, seen.read) = (Some(print.clone()), Some(print));
    assert_eq!(bench.look(), NONE);
    assert_eq!(
        bench.look_with(true, Ok(())),
        ["a"],
        "but when someone asks"
    );
}

#[test]
fn a_bad_file_changes_nothing_and_is_told_once() {
    let mut bench = Bench::new();
    bench.write("a", BAD);
    bench.look();
    assert_eq!(bench.look(), NONE);
    assert_eq!(bench.said(), 1);
    let said = bench.files.said.clone();
    // It is still bad when another one changes.
    bench.write("b", &flow(4));
    bench.look();
    assert_eq!(bench.look(), ["b"]);
    assert_eq!(bench.files.said, said, "and not told again");
    assert!(bench.runs("a", &flow(1)));
    bench.write("a", &flow(5));
    bench.look();
    assert_eq!(bench.look(), ["a"]);
    assert_eq!(bench.said(), 0);
}

#[test]
fn what_did_not_fit_is_taken_up_when_another_file_makes_room() {
    let mut bench = Bench::new();
    let door =
        "[nodes.door]\ntype = 'gpio in'\npin = 22\n[nodes.show]\ntype = 'debug'\nfrom = 'door'\n";
    bench.write("b", door);
    bench.look();
    assert_eq!(bench.look(), ["b"]);
    bench.write("a", door);
    bench.look();
    assert_eq!(bench.look(), NONE);
    assert_eq!(bench.said(), 1);
    bench.write("b", &flow(1));
    bench.look();
    assert_eq!(bench.look(), ["a", "b"]);
}

#[test]
fn whatever_happens_to_a_file_its_flow_runs_on() {
    let check = |what: &str, harm: &dyn Fn(&Path)| {
        let mut bench = Bench::new();
        let path = bench.path("a");
        fs::remove_file(&path).unwrap();
        harm(&path);
        for _ in 0..4 {
            assert_eq!(bench.look(), NONE, "{what}");
        }
        assert_eq!(bench.look_with(true, Ok(())), NONE, "{what}");
        assert!(bench.runs("a", &flow(1)), "{what}");
        // And it comes back.
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
        bench.write("a", &flow(2));
        bench.look();
        assert_eq!(bench.look(), ["a"], "{what}");
    };
    check("deleted", &|_| {});
    check("a link that leads nowhere", &|path| {
        symlink("nowhere", path).unwrap()
    });
    check("a link to itself", &|path| symlink(path, path).unwrap());
    check("a directory", &|path| fs::create_dir(path).unwrap());
    check("empty", &|path| fs::write(path, "").unwrap());
    let text = flow(1);
    for length in (1..text.len()).filter(|length| !text[..*length].ends_with('\n')) {
        check("half written", &|path| {
            fs::write(path, &text[..length]).unwrap()
        });
    }
    check("no UTF-8", &|path| fs::write(path, [0xff, 0xfe]).unwrap());
    check("a link to the end of the world", &|path| {
        symlink("/dev/zero", path).unwrap()
    });
    check("huge", &|path| {
        let file = fs::File::create(path).unwrap();
        file.set_len(1 << 40).unwrap();
    });
}

#[test]
fn a_file_that_comes_back_as_it_was_changes_nothing() {
    let mut bench = Bench::new();
    fs::remove_file(bench.path("a")).unwrap();
    for _ in 0..3 {
        bench.look();
    }
    bench.write("a", &flow(1));
    for _ in 0..3 {
        assert_eq!(bench.look(), NONE);
    }
    assert_eq!(bench.said(), 0);
}

#[test]
fn a_link_that_leads_elsewhere_is_a_change() {
    let mut bench = Bench::new();
    let (one, two) = (
        bench.parent.path().join("one"),
        bench.parent.path().join("two"),
    );
    fs::write(&one, flow(1)).unwrap();
    fs::write(&two, flow(2)).unwrap();
    fs::remove_file(bench.path("a")).unwrap();
    symlink(&one, bench.path("a")).unwrap();
    bench.look();
    assert_eq!(bench.look(), NONE, "the same text");
    fs::remove_file(bench.path("a")).unwrap();
    symlink(&two, bench.path("a")).unwrap();
    bench.look();
    assert_eq!(bench.look(), ["a"]);
}

#[test]
fn a_directory_that_cannot_be_listed_changes_nothing() {
    let mut bench = Bench::new();
    let (flows, away) = (
        bench.parent.path().join("flows"),
        bench.parent.path().join("away"),
    );
    fs::rename(&flows, &away).unwrap();
    for _ in 0..3 {
        assert_eq!(bench.look(), NONE);
    }
    assert!(bench.files.trouble.is_some());
    assert_eq!(bench.files.site().flows.len(), 2);
    fs::rename(&away, &flows).unwrap();
    bench.write("a", &flow(2));
    bench.look();
    assert_eq!(bench.look(), ["a"]);
    assert!(bench.files.trouble.is_none());
}

#[test]
fn asked_for_a_file_is_read_at_once_and_bad_ones_are_told_again() {
    let mut bench = Bench::new();
    bench.write("a", &flow(2));
    assert_eq!(bench.look_with(true, Ok(())), ["a"]);
    assert_eq!(bench.look_with(true, Ok(())), NONE);
    bench.write("b", BAD);
    assert_eq!(bench.look_with(true, Ok(())), NONE);
    assert_eq!(bench.look(), NONE);
}

#[test]
fn what_the_engines_refuse_is_offered_again_with_the_next_change() {
    let mut bench = Bench::new();
    bench.write("a", &flow(2));
    bench.look();
    let refuse = Err(ChangeError::NotBuilt {
        flow: "a".into(),
        problem: "no memory".into(),
    });
    assert_eq!(bench.look_with(false, refuse), ["a"]);
    assert!(bench.runs("a", &flow(1)));
    assert_eq!(bench.look(), NONE, "not again and again");
    assert_eq!(bench.look_with(true, Ok(())), ["a"]);
    assert!(bench.runs("a", &flow(2)));
}

#[test]
fn one_file_alone_is_watched_as_well() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("one.toml");
    fs::write(&path, flow(1)).unwrap();
    let (files, listed) = FlowFiles::start(&path, Arc::new(|_| Variables::default()));
    listed.unwrap();
    let mut bench = Bench { parent, files };
    fs::write(&path, flow(2)).unwrap();
    bench.look();
    assert_eq!(bench.look(), ["one"]);
    fs::remove_file(&path).unwrap();
    for _ in 0..3 {
        assert_eq!(bench.look(), NONE);
    }
    assert!(bench.runs("one", &flow(2)));
}

#[test]
fn variables_hold_as_at_the_start() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("one.toml");
    let text = |more: &str| {
        format!(
            "[vars]\npace = '1h'\n{}{more}",
            flow(1).replace("'1s'", "'${pace}'")
        )
    };
    fs::write(&path, text("")).unwrap();
    let variables = |_: &str| {
        let mut variables = Variables::default();
        variables
            .values
            .insert("pace".into(), crate::message::Value::from("2s"));
        variables
    };
    let (files, _) = FlowFiles::start(&path, Arc::new(variables));
    let mut bench = Bench { parent, files };
    fs::write(&path, text("# other")).unwrap();
    bench.look();
    assert_eq!(bench.look(), ["one"]);
    let flow = &bench.files.site().flows[0];
    assert_eq!(flow.vars()["pace"], crate::message::Value::from("2s"));
}

mod last_good_copies {
    use super::*;

    fn state(bench: &Bench) -> StateDirectory {
        StateDirectory::at(bench.parent.path().join("state"))
    }

    fn copies(bench: &Bench) -> Copies {
        Copies {
            directory: Arc::new(Mutex::new(state(bench))),
            counters: Arc::default(),
        }
    }

    /// As another process would start.
    fn start_again(bench: &mut Bench) -> Vec<String> {
        let directory = bench.parent.path().join("flows");
        let (files, _) = FlowFiles::start(&directory, Arc::new(|_| Variables::default()));
        bench.files = files;
        let mut state = state(bench);
        bench.files.fall_back(&mut state)
    }

    #[test]
    fn a_flow_whose_file_is_bad_runs_from_its_last_good_copy() {
        let mut bench = Bench::new();
        let copies = copies(&bench);
        bench.files.keep_copies(&copies);
        bench.write("a", &flow(2));
        bench.look();
        bench.files.look(false, |_| Ok(()), Some(&copies));
        bench.write("a", BAD);
        drop(copies);
        assert_eq!(start_again(&mut bench), ["a"]);
        assert!(bench.runs("a", &flow(2)) && bench.runs("b", &flow(1)));
        // The copy of a copy is not made from what is bad.
        bench
            .files
            .keep_copies(&super::last_good_copies::copies(&bench));
        assert_eq!(start_again(&mut bench), ["a"]);
        bench.write("a", &flow(3));
        bench.look();
        assert_eq!(bench.look(), ["a"]);
    }

    #[test]
    fn a_link_that_leads_nowhere_is_bad_and_what_has_no_file_does_not_run() {
        let mut bench = Bench::new();
        bench.files.keep_copies(&copies(&bench));
        for name in ["a", "b"] {
            fs::remove_file(bench.path(name)).unwrap();
        }
        symlink("nowhere", bench.path("a")).unwrap();
        assert_eq!(start_again(&mut bench), ["a"]);
        assert!(bench.runs("a", &flow(1)));
        assert_eq!(state(&bench).copies(), ["a"], "there is no `b` any more");
    }

    #[test]
    fn without_any_file_no_copy_is_forgotten_and_none_runs() {
        let mut bench = Bench::new();
        bench.files.keep_copies(&copies(&bench));
        for name in ["a", "b"] {
            fs::remove_file(bench.path(name)).unwrap();
        }
        assert_eq!(start_again(&mut bench), NONE);
        assert_eq!(state(&bench).copies(), ["a", "b"]);
        fs::remove_dir(bench.parent.path().join("flows")).unwrap();
        assert_eq!(start_again(&mut bench), NONE);
    }

    #[test]
    fn what_is_there_and_cannot_be_listed_runs_from_copies() {
        let mut bench = Bench::new();
        bench.files.keep_copies(&copies(&bench));
        let flows = bench.parent.path().join("flows");
        fs::remove_dir_all(&flows).unwrap();
        // Something that is neither a directory nor a file that can be a flow.
        let made = std::os::unix::net::UnixListener::bind(&flows);
        made.unwrap();
        assert_eq!(start_again(&mut bench), ["a", "b"]);
    }
}
