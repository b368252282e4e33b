//! Completions and manual pages, made from the text that `--help` shows. Every program of the package
//! takes in this file.

use std::fs;
use std::io;
use std::path::Path;

use clap::{Args, Command, Subcommand};
use clap_complete::Shell;

/// What a program says of itself.
#[derive(Debug, Subcommand)]
pub(crate) enum Manual {
    /// Print what a shell needs to complete command lines
    #[command(
        after_help = "Examples, in ~/.bashrc:\n  source <(tund completions bash)\n  \
                            source <(tunctl completions bash)"
    )]
    Completions {
        /// Name of the shell
        shell: Shell,
    },
    /// Write the manual pages into a directory
    #[command(
        after_help = "Examples:\n  tund man /usr/share/man/man1\n  tunctl man /usr/share/man/man1"
    )]
    Man(Directory),
}

/// Where manual pages go.
#[derive(Debug, Args)]
pub(crate) struct Directory {
    /// Directory, which is made if it is not there
    directory: std::path::PathBuf,
}

impl Manual {
    /// Does what the user asked for; `say` prints.
    pub(crate) fn run(
        &self,
        mut command: Command,
        say: impl FnOnce(&str) -> io::Result<()>,
    ) -> io::Result<()> {
        match self {
            Self::Completions { shell } => {
                let name = command.get_name().to_owned();
                let mut text = Vec::new();
                clap_complete::generate(*shell, &mut command, name, &mut text);
                say(&String::from_utf8_lossy(&text))
            }
            Self::Man(Directory { directory }) => write_pages(command, directory),
        }
    }
}

/// Writes the page of a program, and one for each of its commands.
fn write_pages(command: Command, directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    clap_mangen::generate_to(command, directory)
}
