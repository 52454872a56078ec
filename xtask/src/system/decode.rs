//! From TOML's tables to forms. It goes on after a mistake, so that one look at a file finds all of them, and takes a
//! misspelt key for the one that is meant.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::problem::{Problem, Text, TextSpan, choice, nearest};

/// A value of a TOML file, with its place.
pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// What is wrong so far, in one file.
pub(super) struct Findings {
    pub(super) text: Arc<Text>,
    problems: RefCell<Vec<Problem>>,
    /// Whether a part of the system is missing because of what is wrong with it.
    incomplete: Cell<bool>,
}

impl Findings {
    pub(super) const fn new(text: Arc<Text>) -> Self {
        Self { text, problems: RefCell::new(Vec::new()), incomplete: Cell::new(false) }
    }

    /// A part of the system cannot be used: what refers to it is not judged.
    pub(super) fn lost(&self, span: impl Into<TextSpan>, sentence: impl Into<String>) {
        self.incomplete.set(true);
        self.report(span, sentence);
    }

    /// Something is wrong, and everything is there.
    pub(super) fn report(&self, span: impl Into<TextSpan>, sentence: impl Into<String>) {
        self.add(Problem::new(Some(&self.text), Some(span.into()), sentence));
    }

    /// As [`Findings::lost`].
    pub(super) fn lost_to(&self, problem: Problem) {
        self.incomplete.set(true);
        self.add(problem);
    }

    pub(super) fn add(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// The value, or nothing where it is wrong.
    pub(super) fn keep<T>(&self, result: Result<T, Problem>) -> Option<T> {
        result.map_err(|problem| self.lost_to(problem)).ok()
    }

    pub(super) const fn is_incomplete(&self) -> bool {
        self.incomplete.get()
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }
}

/// Where a value stands: `key` of `owner`.
pub(super) struct Context<'a> {
    pub(super) findings: &'a Findings,
    pub(super) key: &'a str,
    /// As in a sentence: `vm "alpha"`.
    pub(super) owner: &'a str,
}

impl Context<'_> {
    /// Says that `value` is no `expected`, and how to write it.
    pub(super) fn mismatch(&self, value: &Value<'_>, expected: &str, advice: &str) {
        let found = match value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number with a point",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let (key, owner) = (self.key, self.owner);
        let sentence = format!("the key {key:?} of {owner} is {found}, but must be {expected}; {advice}");
        self.findings.lost(value.span(), sentence);
    }

    /// Says what is wrong with `value` in the words of whoever tried to read it.
    pub(super) fn refuse(&self, value: &Value<'_>, sentence: &str) {
        let (key, owner) = (self.key, self.owner);
        self.findings.lost(value.span(), format!("the key {key:?} of {owner}: {sentence}"));
    }

    /// The value as it is written.
    fn written(&self, value: &Value<'_>) -> &str {
        self.findings.text.get(value.span().into())
    }
}

/// What can be read from a value.
pub(super) trait Decode: Sized {
    /// As in a sentence, with an example: `text in quotes, such as "alpha"`.
    const EXPECTED: &'static str;

    /// What stands for a key that is not there. Nothing, where it must be there.
    fn absent() -> Option<Self> {
        None
    }

    /// A value that no rule refuses, in place of one that is wrong or missing: so the rest of its section is judged.
    fn stand_in() -> Option<Self> {
        None
    }

    /// Reads `value`. Where that cannot be, it says why, and gives nothing.
    fn decode(value: Value<'_>, context: &Context<'_>) -> Option<Self>;
}

impl Decode for String {
    const EXPECTED: &'static str = "text in quotes";

    fn decode(value: Value<'_>, context: &Context<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::String(text) => return Some(text.to_string()),
            DeValue::Array(list) if list.len() == 1 => {
                context.mismatch(&value, Self::EXPECTED, "leave the brackets out");
            }
            DeValue::Array(_) | DeValue::Table(_) => context.mismatch(&value, Self::EXPECTED, "write one text"),
            DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {
                let advice = format!("write \"{}\"", context.written(&value));
                context.mismatch(&value, Self::EXPECTED, &advice);
            }
        }
        None
    }
}

impl Decode for bool {
    const EXPECTED: &'static str = "true or false";

    fn decode(value: Value<'_>, context: &Context<'_>) -> Option<Self> {
        if let DeValue::Boolean(stated) = value.get_ref() {
            return Some(*stated);
        }
        let text = context.written(&value).trim_matches(['"', '\'']).to_lowercase();
        let advice = match text.as_str() {
            "yes" | "on" | "true" | "1" => "write true, without quotes",
            "no" | "off" | "false" | "0" => "write false, without quotes",
            _ => "write one of these, without quotes",
        };
        context.mismatch(&value, Self::EXPECTED, advice);
        None
    }
}

fn number<T: TryFrom<u64> + std::fmt::Display>(value: &Value<'_>, most: T, context: &Context<'_>) -> Option<T> {
    const EXPECTED: &str = "a whole number, such as 2";
    let DeValue::Integer(digits) = value.get_ref() else {
        let text = context.written(value).trim_matches(['"', '\'']);
        let advice = match (value.get_ref(), text.parse::<u64>(), text.split_once('.')) {
            (_, Ok(number), _) => format!("write {number}, without quotes"),
            (DeValue::Float(_), _, Some((whole, _))) => format!("write {whole}, or the next one"),
            _ => "write one".to_string(),
        };
        context.mismatch(value, EXPECTED, &advice);
        return None;
    };
    let plain = u64::from_str_radix(digits.as_str(), digits.radix()).ok().and_then(|number| T::try_from(number).ok());
    if plain.is_none() {
        let written = context.written(value);
        context.refuse(value, &format!("{written} is not a number from 0 to {most}; choose one of those"));
    }
    plain
}

macro_rules! numbers {
    ($($kind:ty),*) => {
        $(impl Decode for $kind {
            const EXPECTED: &'static str = "a whole number, such as 2";

            fn decode(value: Value<'_>, context: &Context<'_>) -> Option<Self> {
                number(&value, <$kind>::MAX, context)
            }

            fn stand_in() -> Option<Self> {
                Some(0)
            }
        })*
    };
}
numbers!(u16, u32, u64);

impl<T: Decode> Decode for Spanned<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn decode(value: Value<'_>, context: &Context<'_>) -> Option<Self> {
        let span = value.span();
        Some(Self::new(span, T::decode(value, context)?))
    }

    fn stand_in() -> Option<Self> {
        Some(Self::new(0..0, T::stand_in()?))
    }
}

impl<T: Decode> Decode for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn decode(value: Value<'_>, context: &Context<'_>) -> Option<Self> {
        Some(T::decode(value, context))
    }
}

/// A key with a list: nothing in it where the key is not there. What is wrong in it is left out.
impl<T: Decode> Decode for Vec<T> {
    const EXPECTED: &'static str = "a list in brackets";

    fn absent() -> Option<Self> {
        Some(Self::new())
    }

    fn stand_in() -> Option<Self> {
        Some(vec![T::stand_in()?])
    }

    fn decode(value: Value<'_>, context: &Context<'_>) -> Option<Self> {
        if let DeValue::Array(_) = value.get_ref() {
            let DeValue::Array(list) = value.into_inner() else { return None };
            return Some(list.into_iter().filter_map(|item| T::decode(item, context)).collect());
        }
        let advice = if let DeValue::Table(_) = value.get_ref() {
            format!("write its name in double brackets, [[{}]], each time", context.key)
        } else {
            format!("write [{}]", context.written(&value))
        };
        context.mismatch(&value, Self::EXPECTED, &advice);
        None
    }
}

/// A table with known keys, while it is read.
pub(super) struct Keys<'i, 'a> {
    table: DeTable<'i>,
    span: TextSpan,
    known: &'static [&'static str],
    /// As in a sentence.
    name: String,
    findings: &'a Findings,
}

impl<'i, 'a> Keys<'i, 'a> {
    /// Takes the table in `value`, which `name` names in sentences; says what keys in it are not `known`, and gives one
    /// that is misspelt its right name.
    pub(super) fn of(
        value: Value<'i>,
        known: &'static [&'static str],
        context: &Context<'a>,
        name: fn(&DeTable<'_>, &str) -> String,
    ) -> Option<Self> {
        let span = TextSpan::from(value.span());
        if !matches!(value.get_ref(), DeValue::Table(_)) {
            context.mismatch(&value, "a table", "write its keys in braces, { … }, or in a section of its own");
        }
        let DeValue::Table(mut table) = value.into_inner() else { return None };
        let findings = context.findings;
        let name = name(&table, context.owner);
        let strangers: Vec<_> = table.keys().filter(|key| !known.contains(&key.get_ref().as_ref())).cloned().collect();
        for key in strangers {
            let word = key.get_ref().to_string();
            let advice = choice(&word, known.iter().copied());
            findings.report(key.span(), format!("{name} has the key {word:?}, which is not known; {advice}"));
            let meant = nearest(&word, known.iter().copied()).filter(|meant| !table.contains_key(*meant));
            if let (Some(value), Some(meant)) = (table.remove(word.as_str()), meant) {
                table.insert(Spanned::new(key.span(), meant.into()), value);
            }
        }
        Some(Self { table, span, known, name, findings })
    }

    /// Reads the value of `key`.
    pub(super) fn take<T: Decode>(&mut self, key: &'static str) -> Option<T> {
        debug_assert!(self.known.contains(&key), "{key} is declared");
        let context = Context { findings: self.findings, key, owner: &self.name };
        match self.table.remove(key) {
            Some(value) => T::decode(value, &context).or_else(T::absent).or_else(T::stand_in),
            None => {
                let absent = T::absent();
                if absent.is_none() {
                    let sentence = format!("{} lacks the key {key:?}; add it: {}", self.name, T::EXPECTED);
                    self.findings.lost(self.span, sentence);
                }
                absent.or_else(T::stand_in)
            }
        }
    }
}
