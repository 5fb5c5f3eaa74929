//! Reads and writes CSV (RFC 4180) without a string for each field: a row keeps its bytes in one buffer.

use std::io::{self, BufRead, Write};

/// Where a file breaks the rules, by the number of its line.
#[derive(Debug)]
pub enum Error {
    Io(io::Error),
    QuoteInside { line: usize },
    TextAfterQuote { line: usize },
    NeverClosed { line: usize },
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Error::Io(error)
    }
}

/// The fields of a row. Its memory is used again for the next one.
#[derive(Default)]
pub struct Row {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Row {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)?;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        Some(&self.bytes[start..end])
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    fn end_field(&mut self) {
        self.ends.push(self.bytes.len());
    }
}

enum State {
    Start,
    Plain,
    Quoted,
    QuoteInQuoted,
}

pub struct Reader<R> {
    source: R,
    line: usize,
    separator: u8,
    buffer: Vec<u8>,
}

impl<R: BufRead> Reader<R> {
    pub fn new(source: R, separator: u8) -> Self {
        Reader { source, line: 0, separator, buffer: Vec::new() }
    }

    /// Reads the next row into `row`; false at the end of the file. A quoted field may hold line breaks.
    pub fn read(&mut self, row: &mut Row) -> Result<bool, Error> {
        row.clear();
        let mut state = State::Start;
        let opened = self.line + 1;
        loop {
            self.buffer.clear();
            if self.source.read_until(b'\n', &mut self.buffer)? == 0 {
                return match state {
                    State::Start if row.is_empty() => Ok(false),
                    _ => Err(Error::NeverClosed { line: opened }),
                };
            }
            self.line += 1;
            let text = match self.buffer.as_slice() {
                [text @ .., b'\r', b'\n'] | [text @ .., b'\n'] => text,
                whole => whole,
            };
            state = self.fields(text, state, row)?;
            if !matches!(state, State::Quoted) {
                row.end_field();
                return Ok(true);
            }
            row.bytes.extend_from_slice(&self.buffer[text.len()..]);
        }
    }

    fn fields(&self, text: &[u8], mut state: State, row: &mut Row) -> Result<State, Error> {
        for &byte in text {
            state = match (state, byte) {
                (State::Quoted, b'"') => State::QuoteInQuoted,
                (State::Quoted, _) => {
                    row.bytes.push(byte);
                    State::Quoted
                }
                (State::QuoteInQuoted, b'"') => {
                    row.bytes.push(b'"');
                    State::Quoted
                }
                (_, separator) if separator == self.separator => {
                    row.end_field();
                    State::Start
                }
                (State::QuoteInQuoted, _) => return Err(Error::TextAfterQuote { line: self.line }),
                (State::Start, b'"') => State::Quoted,
                (State::Plain, b'"') => return Err(Error::QuoteInside { line: self.line }),
                (State::Start | State::Plain, _) => {
                    row.bytes.push(byte);
                    State::Plain
                }
            };
        }
        Ok(state)
    }
}

/// Writes a row; fields are quoted only where they must be.
pub fn write<W: Write>(out: &mut W, fields: &[&[u8]], separator: u8) -> io::Result<()> {
    for (index, field) in fields.iter().enumerate() {
        if index > 0 {
            out.write_all(&[separator])?;
        }
        let must = |byte: &u8| *byte == separator || matches!(*byte, b'"' | b'\r' | b'\n');
        if field.iter().any(must) || (fields.len() == 1 && field.is_empty()) {
            out.write_all(b"\"")?;
            for (number, piece) in field.split(|byte| *byte == b'"').enumerate() {
                if number > 0 {
                    out.write_all(b"\"\"")?;
                }
                out.write_all(piece)?;
            }
            out.write_all(b"\"")?;
        } else {
            out.write_all(field)?;
        }
    }
    out.write_all(b"\r\n")
}
