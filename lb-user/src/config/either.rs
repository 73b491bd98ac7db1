//! Fields that are written in one of two ways: a word or a list of words, a number or a word.

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor, value::SeqAccessDeserializer};
use std::fmt;
use std::marker::PhantomData;
use toml::Spanned;

/// One word or a list of words; `W` says which in messages.
pub(super) enum Words<W> {
    One(String),
    List(Vec<Spanned<String>>, PhantomData<W>),
}

/// A port as a number, or ports as a word.
pub(super) enum Port {
    Number(i64),
    Word(String),
}

/// What a field with words is to hold.
pub(super) trait Expected {
    const EXPECTED: &'static str;
}

/// The ways of `join`.
pub(super) struct Ways;

impl Expected for Ways {
    const EXPECTED: &'static str = "a list of ways such as [\"learn\"], or \"off\"";
}

/// The names of interfaces.
pub(super) struct Interfaces;

impl Expected for Interfaces {
    const EXPECTED: &'static str = "the name of an interface, or a list of names such as [\"eth0\", \"eth1\"]";
}

impl<'de, W: Expected> Deserialize<'de> for Words<W> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WordsVisitor(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PortVisitor)
    }
}

struct WordsVisitor<W>(PhantomData<W>);

impl<'de, W: Expected> Visitor<'de> for WordsVisitor<W> {
    type Value = Words<W>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(W::EXPECTED)
    }

    fn visit_str<E>(self, word: &str) -> Result<Words<W>, E> {
        Ok(Words::One(word.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Words<W>, A::Error> {
        Deserialize::deserialize(SeqAccessDeserializer::new(list)).map(|list| Words::List(list, PhantomData))
    }
}

struct PortVisitor;

impl Visitor<'_> for PortVisitor {
    type Value = Port;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a port, a range such as \"8000-8010\", or \"any\"")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Port, E> {
        Ok(Port::Number(number))
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<Port, E> {
        Ok(Port::Word(word.to_owned()))
    }
}
