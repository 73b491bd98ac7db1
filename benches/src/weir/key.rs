//! The file of the cluster key, written as an operator writes it: while the key is changed, the former one stands in the
//! second line.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use crate::LabError;

/// A cluster's key file, and how many keys it has had.
#[derive(Debug, Clone)]
pub struct KeyFile {
    path: PathBuf,
    number: u32,
}

impl KeyFile {
    /// Writes the first key to a new file.
    ///
    /// # Errors
    ///
    /// If the file cannot be written; likewise below.
    pub fn create(path: PathBuf) -> Result<Self, LabError> {
        let file = Self { path, number: 1 };
        file.write(&line(1))?;
        Ok(file)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts another key before the present one.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn change(&mut self) -> Result<(), LabError> {
        self.number += 1;
        self.write(&[line(self.number), line(self.number - 1)].concat())
    }

    /// Puts another key in the place of the present one, as nobody should.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn replace(&self) -> Result<(), LabError> {
        self.write(&line(self.number + 1))
    }

    /// Writes the present key alone.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn settle(&self) -> Result<(), LabError> {
        self.write(&line(self.number))
    }

    /// A controller that reads it meanwhile sees the one or the other.
    fn write(&self, text: &str) -> Result<(), LabError> {
        let new = self.path.with_extension("new");
        let written = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new);
        written
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .and_then(|()| fs::rename(&new, &self.path))
            .map_err(LabError::file("write", &self.path))
    }
}

fn line(number: u32) -> String {
    format!("5eed{number:028x}\n")
}
