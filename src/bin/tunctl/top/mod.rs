//! A picture of the network now, drawn again and again.
//!
//! - [`sample`]: what is read from the tree, and what happened between two looks;
//! - [`view`]: the picture.

mod sample;
mod view;

use std::io::{self, IsTerminal};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::{TermionBackend, TestBackend};
use ratatui::termion::event::Key;
use ratatui::termion::input::TermRead;
use ratatui::termion::raw::IntoRawMode;
use ratatui::termion::screen::IntoAlternateScreen;

use self::sample::{History, Sample};
use crate::interrupt::at_interrupt;
use crate::report::{print_json, say};
use crate::tree::{Failure, Tree};

/// The width of a picture that goes into a file, columns.
const WIDTH: u16 = 120;
/// How long a new size of the terminal may go unnoticed.
const LOOK: Duration = Duration::from_millis(200);

/// What the user wants.
enum Wish {
    Leave,
    Draw,
}

/// Prints the picture once, from two looks that are `interval` apart.
pub(crate) fn once(tree: &Tree, interval: Duration, json: bool) -> Result<(), Failure> {
    let mut history = History::default();
    history.add(Sample::read(tree)?);
    thread::sleep(interval);
    history.add(Sample::read(tree)?);
    if json {
        return print_json(&history.now());
    }
    let width = match ratatui::termion::terminal_size() {
        Ok((width, _)) if io::stdout().is_terminal() => width,
        _ => WIDTH,
    };
    say(&picture(&history, width, view::height(&history))?)
}

/// The picture as text.
fn picture(history: &History, width: u16, height: u16) -> Result<String, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(error.to_string());
    let backend = TestBackend::new(width, height);
    let mut terminal = Terminal::new(backend).map_err(|error| failed(&error))?;
    let draw = terminal.draw(|frame| view::draw(frame, history, None));
    draw.map_err(|error| failed(&error))?;
    let buffer = terminal.backend().buffer();
    let lines = buffer
        .content()
        .chunks(usize::from(width).max(1))
        .map(|row| {
            let line: String = row.iter().map(|cell| cell.symbol()).collect();
            line.trim_end().to_owned()
        });
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// Draws the picture on the terminal every `interval`, until the user leaves.
pub(crate) fn run(tree: &Tree, interval: Duration) -> Result<(), Failure> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(Failure::new(
            "this is for a terminal; `tunctl top --once` prints the picture once",
        ));
    }
    let failed = |error: io::Error| Failure::new(format!("the terminal: {error}"));
    // Whatever cannot be read is said before the screen is taken.
    let first = Sample::read(tree)?;
    let (sender, wishes) = mpsc::channel();
    let stop = sender.clone();
    // If signals cannot be caught, one ends the process as it is.
    let _ = at_interrupt(move || drop(stop.send(Wish::Leave)));
    let screen = io::stdout().into_raw_mode().map_err(failed)?;
    let screen = screen.into_alternate_screen().map_err(failed)?;
    let mut terminal = Terminal::new(TermionBackend::new(screen)).map_err(failed)?;
    terminal.hide_cursor().map_err(failed)?;
    // The thread lasts as long as the process: nothing else would end its wait.
    thread::spawn(move || {
        for key in io::stdin().keys() {
            let wish = match key {
                Ok(Key::Char('q' | 'Q') | Key::Esc | Key::Ctrl('c')) | Err(_) => Wish::Leave,
                Ok(_) => Wish::Draw,
            };
            let last = matches!(wish, Wish::Leave);
            if sender.send(wish).is_err() || last {
                return;
            }
        }
        // Nobody is at the keys any more.
        let _ = sender.send(Wish::Leave);
    });

    let mut history = History::default();
    history.add(first);
    let mut looked = Instant::now();
    let root = tree.root().display().to_string();
    loop {
        let draw = terminal.draw(|frame| view::draw(frame, &history, Some(&root)));
        let drawn = draw.map_err(failed)?.area;
        if wait(&wishes, looked + interval, || {
            let size = ratatui::termion::terminal_size().ok();
            size.is_some_and(|size| size != (drawn.width, drawn.height))
        }) {
            let _ = terminal.show_cursor();
            return Ok(());
        }
        if looked.elapsed() >= interval {
            looked = Instant::now();
            history.add(Sample::read(tree)?);
        }
    }
}

/// Waits for the time of the next look, or until something is to be drawn again before. True if the
/// user wants to leave.
fn wait(wishes: &Receiver<Wish>, until: Instant, resized: impl Fn() -> bool) -> bool {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        match wishes.recv_timeout(left.min(LOOK)) {
            Ok(Wish::Leave) | Err(RecvTimeoutError::Disconnected) => return true,
            Ok(Wish::Draw) => return false,
            Err(RecvTimeoutError::Timeout) if resized() => return false,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}
