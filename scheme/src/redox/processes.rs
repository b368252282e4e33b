//! What is known of clients' processes, without a call to anybody.
//!
//! The manager of processes is a process, too: who holds the lock of the server does not call it. So
//! a question that has no answer yet is noted, and the request that led to it is made again when
//! the [answers](Answers) were found without the lock.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

// On Redox the mutex of std is the C library's, which makes a system call for every unlock.
use parking_lot::Mutex;

use crate::server::{Pid, Processes, SignalTarget};

/// Longest list of processes that is read, bytes.
const MAX_LIST: usize = 4 << 20;
/// Bytes of it that are read at a time: usually all.
const PIECE: usize = 16 << 10;
/// Width of the column of numbers in the system's list, in characters. A longer number is longer.
const COLUMN: usize = 6;
/// Longest number.
const LONGEST: usize = 10;

/// The list of processes at some moment. The system counts them up and uses no number twice, so who
/// was dead then is dead for ever.
#[derive(Clone, Debug, Default)]
pub struct List {
    /// The beginnings of their lines, in order: the numbers, filled up with spaces.
    living: Vec<[u8; LONGEST]>,
    /// The highest number of a process that was seen before this moment. Of those with higher ones
    /// it tells nothing.
    newest: Pid,
}

impl List {
    /// Reads the system's text. `newest` is the highest number of a process that was seen before the
    /// text was made.
    pub fn parse(text: &str, newest: Pid) -> Self {
        let number = |line: &str| {
            let mut number = [b' '; LONGEST];
            for (to, from) in number.iter_mut().zip(line.bytes()) {
                *to = from;
            }
            number
        };
        // The state is the first that is a letter: columns of numbers may touch.
        let state = |line: &&str| line.chars().find(char::is_ascii_alphabetic);
        // These are zombies.
        let alive = |line: &&str| !matches!(state(line), Some('E' | 'X'));
        let mut living: Vec<_> = text.lines().filter(alive).map(number).collect();
        living.sort_unstable();
        Self { living, newest }
    }

    /// Whether a process was dead. False, too, if that cannot be told.
    pub fn is_dead(&self, pid: Pid) -> bool {
        if pid > self.newest {
            return false;
        }
        let number = format!("{:<COLUMN$}", pid.0);
        let before = |line: &[u8; LONGEST]| &line[..number.len()] < number.as_bytes();
        let at = self.living.partition_point(before);
        let line = self.living.get(at);
        !line.is_some_and(|line| line.starts_with(number.as_bytes()))
    }
}

/// Reads the system's list in pieces. `FileTooLarge` if it has no end.
pub fn read_list(mut read: impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<String> {
    let mut text = Vec::new();
    while text.len() < MAX_LIST {
        let len = text.len();
        text.resize(len + PIECE, 0);
        let read = read(&mut text[len..])?.min(PIECE);
        text.truncate(len + read);
        // Each read costs a call, so the last is not made to find nothing.
        if read < PIECE {
            return Ok(String::from_utf8_lossy(&text).into_owned());
        }
    }
    Err(io::ErrorKind::FileTooLarge.into())
}

/// A question about processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Who lives.
    Life,
    /// The session of a process or group.
    Session(SignalTarget),
    /// Whether there is such a process.
    Exists(Pid),
}

/// The system's answers. Each may need calls to other processes.
pub trait Manager {
    /// The list of processes, as it is now. `None` if it cannot be had.
    fn list(&self) -> Option<String>;

    /// [`Processes::session`].
    fn session(&self, target: SignalTarget) -> Option<Pid>;

    /// Whether there is such a process.
    fn exists(&self, pid: Pid) -> bool;
}

/// Answers for one request.
#[derive(Debug, Default)]
pub struct Answers {
    list: Option<List>,
    sessions: Vec<(SignalTarget, Option<Pid>)>,
    exist: Vec<(Pid, bool)>,
    /// How often they were added to.
    rounds: u32,
}

impl Answers {
    /// A request asks one thing after the other, but no more than this. Then it is answered as it is.
    const MAX_ROUNDS: u32 = 8;

    /// Finds the answers to further questions. `newest` is the highest number of a process that was
    /// seen before.
    pub fn add(&mut self, questions: &[Question], newest: Pid, manager: &impl Manager) {
        self.rounds += 1;
        for question in questions {
            match *question {
                Question::Life => {
                    let list = manager.list();
                    let list = list.map(|text| List::parse(&text, newest));
                    self.list = Some(list.unwrap_or_default());
                }
                Question::Session(target) => {
                    self.sessions.push((target, manager.session(target)));
                }
                Question::Exists(pid) => self.exist.push((pid, manager.exists(pid))),
            }
        }
    }
}

/// What a server knows of processes. All copies know the same.
#[derive(Clone, Debug, Default)]
pub struct Known(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Whether there are questions.
    asked: AtomicBool,
    /// Whether a newer list would be useful.
    outdated: AtomicBool,
    facts: Mutex<Facts>,
}

#[derive(Debug, Default)]
struct Facts {
    /// The last list that was read.
    list: List,
    /// What the present request asked, and there is no answer to.
    questions: Vec<Question>,
    /// The answers for the present request.
    answers: Answers,
}

impl Known {
    /// Whether the request asked something that is not known, and has to be made again.
    pub fn is_asked(&self) -> bool {
        self.0.asked.load(Ordering::Relaxed)
    }

    /// Ends a request: takes its questions, and the answers that it had already.
    pub fn take(&self) -> (Vec<Question>, Answers) {
        self.0.asked.store(false, Ordering::Relaxed);
        let mut facts = self.0.facts.lock();
        let questions = std::mem::take(&mut facts.questions);
        (questions, std::mem::take(&mut facts.answers))
    }

    /// Begins a request that is made again.
    pub fn begin(&self, answers: Answers) {
        let mut facts = self.0.facts.lock();
        if let Some(list) = &answers.list {
            facts.list = list.clone();
        }
        facts.answers = answers;
    }

    /// Takes note of a list.
    pub fn learn(&self, list: List) {
        self.0.facts.lock().list = list;
    }

    /// Whether a newer list would be useful, since this was last asked.
    pub fn take_outdated(&self) -> bool {
        self.0.outdated.load(Ordering::Relaxed) && self.0.outdated.swap(false, Ordering::Relaxed)
    }

    fn ask(&self, facts: &mut Facts, question: Question) {
        if facts.answers.rounds < Answers::MAX_ROUNDS && !facts.questions.contains(&question) {
            facts.questions.push(question);
            self.0.asked.store(true, Ordering::Relaxed);
        }
    }
}

impl Processes for Known {
    fn session(&self, target: SignalTarget) -> Option<Pid> {
        let mut facts = self.0.facts.lock();
        let sessions = &facts.answers.sessions;
        let found = sessions.iter().find(|(asked, _)| *asked == target);
        match found {
            Some(&(_, session)) => session,
            None => {
                self.ask(&mut facts, Question::Session(target));
                None
            }
        }
    }

    /// There is no identifier of a process that tells more than its number, which is used once.
    fn identity(&self, pid: Pid) -> Option<u64> {
        let mut facts = self.0.facts.lock();
        let found = facts.answers.exist.iter().find(|(asked, _)| *asked == pid);
        match found {
            Some((_, exists)) => exists.then_some(0),
            None => {
                self.ask(&mut facts, Question::Exists(pid));
                Some(0)
            }
        }
    }

    fn alive(&self, pid: Pid) -> bool {
        let mut facts = self.0.facts.lock();
        if facts.list.is_dead(pid) {
            return false;
        }
        match &facts.answers.list {
            Some(list) => !list.is_dead(pid),
            None => {
                self.ask(&mut facts, Question::Life);
                true
            }
        }
    }

    fn is_known_dead(&self, pid: Pid) -> bool {
        let dead = self.0.facts.lock().list.is_dead(pid);
        if !dead {
            self.0.outdated.store(true, Ordering::Relaxed);
        }
        dead
    }

    fn closes_get_lost(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const LIST: &str = "\
PID   PGID  PPID  SID   RUID  RGID  EUID  EGID  NTHRD STATUS  NAME
1     1     1     1     0     0     0     0     1     R       init
70    70    1     1     0     0     0     0     2     S       X
7     7     1     1     0     0     0     0     1     X       R
8     8     1     1     0     0     0     0     1     E       R
12345678     1     1     0     0     0     0     1     R       long
";

    #[test]
    fn a_process_is_dead_if_it_was_seen_and_is_not_listed() {
        let list = List::parse(LIST, Pid(12_345_679));
        for living in [1, 70, 12_345_678, 12_345_680] {
            assert!(!list.is_dead(Pid(living)), "{living}");
        }
        for dead in [0, 2, 7, 8, 700, 1234, 12_345_679] {
            assert!(list.is_dead(Pid(dead)), "{dead}");
        }
        // Of one that may have come later it tells nothing, nor does no list of anybody.
        assert!(!List::parse(LIST, Pid(6)).is_dead(Pid(7)));
        assert!(!List::default().is_dead(Pid(1)));
        assert!(!List::parse("", Pid(0)).is_dead(Pid(u32::MAX)));
    }

    #[test]
    fn a_list_without_end_is_given_up() {
        let mut most = 0;
        let endless = read_list(|piece| {
            most += piece.len();
            Ok(piece.len())
        });
        assert_eq!(endless.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(most, MAX_LIST);
        let mut left = vec![PIECE, 7];
        let text = read_list(|piece| {
            let len = left.remove(0);
            piece[..len].fill(b'x');
            Ok(len)
        });
        assert_eq!(text.unwrap().len(), PIECE + 7);
        assert!(read_list(|_| Err(io::ErrorKind::NotFound.into())).is_err());
    }

    /// A manager that counts how often it is asked.
    struct Counting(RefCell<Vec<Question>>);

    impl Manager for Counting {
        fn list(&self) -> Option<String> {
            self.0.borrow_mut().push(Question::Life);
            Some(LIST.to_owned())
        }

        fn session(&self, target: SignalTarget) -> Option<Pid> {
            self.0.borrow_mut().push(Question::Session(target));
            Some(Pid(1))
        }

        fn exists(&self, pid: Pid) -> bool {
            self.0.borrow_mut().push(Question::Exists(pid));
            pid == Pid(1)
        }
    }

    #[test]
    fn a_request_is_made_again_until_it_has_asked_everything() {
        let (known, manager) = (Known::default(), Counting(RefCell::default()));
        let target = SignalTarget::Process(Pid(1));
        let request = || {
            let session = known.session(target)?;
            let all_dead = ![Pid(2), Pid(7)].into_iter().any(|pid| known.alive(pid));
            Some((session, known.identity(Pid(1)), all_dead))
        };
        let mut result = request();
        let mut rounds = 0;
        while known.is_asked() {
            let (questions, mut answers) = known.take();
            // The server may do other things meanwhile, and they have no part in it.
            assert_eq!(known.session(target), None);
            let _ = known.take();
            answers.add(&questions, Pid(100), &manager);
            known.begin(answers);
            result = request();
            rounds += 1;
        }
        let _ = known.take();
        assert_eq!(result, Some((Pid(1), Some(0), true)));
        assert_eq!(rounds, 2);
        let asked = manager.0.into_inner();
        assert_eq!(asked.len(), 3, "each once: {asked:?}");
        // Those who are dead stay dead, but a session may have changed.
        assert!(!known.alive(Pid(2)) && !known.is_asked());
        assert_eq!(known.session(target), None);
        assert!(known.is_asked());
    }

    #[test]
    fn a_request_that_asks_for_ever_is_answered() {
        let known = Known::default();
        let manager = Counting(RefCell::default());
        for round in 0.. {
            let _ = known.session(SignalTarget::Group(Pid(round)));
            if !known.is_asked() {
                assert_eq!(round, Answers::MAX_ROUNDS);
                return;
            }
            let (questions, mut answers) = known.take();
            answers.add(&questions, Pid(100), &manager);
            known.begin(answers);
        }
    }

    #[test]
    fn who_is_known_to_be_dead_is_found_out_later() {
        let known = Known::default();
        assert!(!known.is_known_dead(Pid(7)));
        assert!(!known.is_asked(), "no request is made again because of it");
        assert!(known.take_outdated() && !known.take_outdated());
        known.learn(List::parse(LIST, Pid(100)));
        assert!(known.is_known_dead(Pid(7)) && !known.take_outdated());
        assert!(!known.is_known_dead(Pid(70)) && known.take_outdated());
    }
}
