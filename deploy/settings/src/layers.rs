//! Reads the settings of a process in layers, each over the one before: defaults, a TOML file, environment
//! variables, flags.
//!
//! Two kinds of settings are kept apart. What changes results is in `tacho.control` and nowhere else. What
//! does not (where a cluster is, ports, limits, names) belongs to a process, and is read here.
//!
//! [`load`] merges the layers and reads the result into the process's settings. At a fault it notes the
//! fault, takes the value out and reads again: so every fault is found, and the checks of content that follow
//! see defaults where the form was wrong. Faults never show the value of a secret, and `--print-config` shows
//! `***` in its place.
//!
//! **Invariant:** every fault is told at once, before the first socket is opened.

use crate::units::{is_secret, listed};
use figment::error::Kind;
use figment::value::{Dict, Map, Value};
use figment::{Error, Figment, Metadata, Profile, Provider};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The beginning of the names of our environment variables.
pub const ENV_PREFIX: &str = "TACHO_";
/// The text between the names of a table and of a setting in it, in environment variables.
const ENV_NEST: &str = "__";
/// The table whose names hold dots themselves: they are librdkafka's.
const PASSED_THROUGH: [&str; 2] = ["kafka", "options"];
/// Most bytes that a file of settings may have.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// How many faults are told at most; the rest is not looked for.
const FAULTS_MAX: usize = 100;

/// The sources of settings.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file, if one was given.
    pub file: Option<PathBuf>,
    /// The environment; only names with [`ENV_PREFIX`] count.
    pub env: BTreeMap<String, String>,
    /// Flags that were given: the dotted name of the setting, and its value.
    pub flags: Vec<(&'static str, String)>,
}

/// The environment of this process; names and values that are no UTF-8 are left out.
#[must_use]
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// The settings, and every fault of their form. A setting at fault has its default in the result, so that the caller
/// can go on and look for faults of content.
#[must_use]
pub fn load<T: DeserializeOwned + Default>(sources: &Sources) -> (T, Vec<String>) {
    let mut faults = Vec::new();
    let mut layers = Vec::new();
    if let Some(path) = &sources.file {
        match file_layer(path) {
            Ok(layer) => layers.push(layer),
            Err(error) => faults.push(format!("{}: {error}", path.display())),
        }
    }
    layers.push(env_layer(&sources.env));
    layers.push(flag_layer(&sources.flags));
    loop {
        let figment = layers
            .iter()
            .fold(Figment::new(), |figment, layer| figment.merge(layer));
        let error = match figment.extract_lossy::<T>() {
            Ok(settings) => return (settings, faults),
            Err(error) => error,
        };
        faults.push(fault(&error));
        let mut taken_out = false;
        for layer in &mut layers {
            taken_out |= remove(&mut layer.values, &error.path);
        }
        if !taken_out || faults.len() >= FAULTS_MAX {
            return (T::default(), faults);
        }
    }
}

/// The settings in force, as TOML; secrets are shown as `***`.
///
/// # Panics
/// Never: settings are plain data with text keys.
#[must_use]
pub fn print<T: Serialize>(settings: &T) -> String {
    toml::to_string(settings).expect("settings are plain data with text keys")
}

/// One layer of settings.
struct Layer {
    /// The name that a fault calls the layer by.
    name: String,
    values: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        Ok(Map::from([(Profile::Default, self.values.clone())]))
    }
}

/// Why a file gives no layer.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("can't be read: {0}")]
    Read(#[from] std::io::Error),
    #[error("is {0} bytes long, which is too long for settings")]
    TooLong(u64),
    /// The message has no source: the library's error shows the line at fault, where a secret may stand.
    #[error("line {line} is no TOML: {message}")]
    Toml { line: usize, message: String },
    #[error("can't be taken as settings: {0}")]
    Value(#[from] Box<Error>),
}

fn file_layer(path: &Path) -> Result<Layer, FileError> {
    let length = std::fs::metadata(path)?.len();
    if length > FILE_BYTES_MAX {
        return Err(FileError::TooLong(length));
    }
    let text = std::fs::read_to_string(path)?;
    let table: toml::Table = toml::from_str(&text).map_err(|error| {
        let line = error.span().map_or(0, |span| {
            text[..span.start.min(text.len())].matches('\n').count() + 1
        });
        FileError::Toml {
            line,
            message: error.message().to_owned(),
        }
    })?;
    let value = Value::serialize(table).map_err(Box::new)?;
    let mut values = value.into_dict().unwrap_or_default();
    flatten_passed_through(&mut values);
    Ok(Layer {
        name: path.display().to_string(),
        values,
    })
}

fn env_layer(env: &BTreeMap<String, String>) -> Layer {
    let mut values = Dict::new();
    for (name, text) in env {
        let Some(bare) = name.strip_prefix(ENV_PREFIX) else {
            continue;
        };
        if !is_service_link(bare) {
            let lower = bare.to_ascii_lowercase();
            let mut path: Vec<String> = lower.split(ENV_NEST).map(str::to_owned).collect();
            if let [first, second, rest @ ..] = path.as_mut_slice()
                && [first.as_str(), second.as_str()] == PASSED_THROUGH
            {
                rest.iter_mut().for_each(|name| *name = name.replace('_', "."));
            }
            insert(&mut values, &path, text);
        }
    }
    Layer {
        name: "the environment".to_owned(),
        values,
    }
}

/// Whether Kubernetes puts a variable of that name into every pod, for a service named `tacho-…`: it is no setting of ours.
fn is_service_link(bare: &str) -> bool {
    let ends = ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"]
        .iter()
        .any(|end| bare.ends_with(end));
    let port = bare
        .split_once("_PORT_")
        .is_some_and(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()));
    !bare.contains(ENV_NEST) && (ends || port || bare.contains("_SERVICE_PORT_"))
}

fn flag_layer(flags: &[(&'static str, String)]) -> Layer {
    let mut values = Dict::new();
    for (name, text) in flags {
        let path: Vec<String> = name.split('.').map(str::to_owned).collect();
        insert(&mut values, &path, text);
    }
    Layer {
        name: "the command line".to_owned(),
        values,
    }
}

/// Sets the setting of that path, unless it is set already.
fn insert(values: &mut Dict, path: &[String], text: &str) {
    let Some((last, tables)) = path.split_last() else {
        return;
    };
    let mut at = values;
    for name in tables {
        let table = at.entry(name.clone()).or_insert_with(|| Value::from(Dict::new()));
        if !matches!(table, Value::Dict(..)) {
            // Of `TACHO_KAFKA` beside `TACHO_KAFKA__PREFIX` the longer name counts.
            *table = Value::from(Dict::new());
        }
        let Value::Dict(_, inner) = table else { return };
        at = inner;
    }
    at.entry(last.clone()).or_insert_with(|| Value::from(text));
}

/// Takes a setting out, and tables that are empty then; false if there was no such setting.
fn remove(values: &mut Dict, path: &[String]) -> bool {
    match path {
        [] => false,
        [last] => values.remove(last).is_some(),
        [first, rest @ ..] => match values.get_mut(first) {
            Some(Value::Dict(_, inner)) => {
                let was_there = remove(inner, rest);
                if inner.is_empty() {
                    values.remove(first);
                }
                was_there
            }
            // An element of an array stays, without what is wrong in it, since faults name elements by their index.
            Some(Value::Array(_, items)) => {
                let Some((index, rest)) = rest.split_first() else {
                    return false;
                };
                let item = index.parse::<usize>().ok().and_then(|index| items.get_mut(index));
                match (item, rest) {
                    (Some(Value::Dict(_, inner)), [_, ..]) => remove(inner, rest),
                    (Some(item), []) => {
                        *item = Value::from(Dict::new());
                        true
                    }
                    _ => false,
                }
            }
            _ => false,
        },
    }
}

/// Turns tables within tables into names with dots, in the table whose names hold dots: TOML reads `a.b.c = 1` as the
/// former.
fn flatten_passed_through(values: &mut Dict) {
    let [first, second] = PASSED_THROUGH;
    let Some(Value::Dict(_, table)) = values.get_mut(first) else {
        return;
    };
    let Some(Value::Dict(tag, options)) = table.remove(second) else {
        return;
    };
    let mut flat = Dict::new();
    flatten("", options, &mut flat);
    table.insert(second.to_owned(), Value::Dict(tag, flat));
}

/// Adds to `flat` all values with their dotted names, which begin with `before`.
fn flatten(before: &str, values: Dict, flat: &mut Dict) {
    for (name, value) in values {
        let name = if before.is_empty() {
            name
        } else {
            format!("{before}.{name}")
        };
        match value {
            Value::Dict(_, inner) => flatten(&name, inner, flat),
            value => {
                flat.insert(name, value);
            }
        }
    }
}

/// The fault that an error tells, without the value of a secret.
fn fault(error: &Error) -> String {
    let source = error
        .metadata
        .as_ref()
        .map_or("settings", |metadata| metadata.name.as_ref());
    let setting = error.path.join(".");
    let what = match &error.kind {
        Kind::UnknownField(_, known) => format!("there is no such setting; there are: {}", listed(known)),
        Kind::InvalidType(_, wanted) | Kind::InvalidValue(_, wanted) if is_secret(&setting) => {
            format!("must be {wanted}")
        }
        Kind::InvalidType(found, wanted) | Kind::InvalidValue(found, wanted) => {
            format!("must be {wanted}, not {found}")
        }
        Kind::UnknownVariant(found, known) => format!("is {found:?}, but must be one of: {}", listed(known)),
        other => other.to_string(),
    };
    format!("{setting}: {what} (in {source})")
}

#[cfg(test)]
mod tests;
