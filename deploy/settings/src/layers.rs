//! Settings in layers: defaults, then a file, then the environment, then flags; every fault is told.

use crate::units::{is_secret, listed};
use figment::error::Kind;
use figment::value::{Dict, Map, Value};
use figment::{Error, Figment, Metadata, Profile, Provider};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What names of environment variables begin with.
pub const ENV_PREFIX: &str = "TACHO_";
/// What stands between the names of a table and of a setting in it, in environment variables.
const ENV_NEST: &str = "__";
/// The table whose names hold dots themselves: those of librdkafka.
const PASSED_THROUGH: [&str; 2] = ["kafka", "options"];
/// A larger file is not one of settings.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// After so many faults the rest is not looked for.
const FAULTS_MAX: usize = 100;

/// Where settings come from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file, if one was given.
    pub file: Option<PathBuf>,
    /// The environment; only names with [`ENV_PREFIX`] count.
    pub env: BTreeMap<String, String>,
    /// Flags that were given: dotted name of the setting, and its value.
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
            Err(fault) => faults.push(format!("{}: {fault}", path.display())),
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

/// One layer, with the name that a fault shows.
struct Layer {
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

fn file_layer(path: &Path) -> Result<Layer, String> {
    let length = std::fs::metadata(path)
        .map_err(|error| format!("can't be read: {error}"))?
        .len();
    if length > FILE_BYTES_MAX {
        return Err(format!("is {length} bytes long, which is too long for settings"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| format!("can't be read: {error}"))?;
    // Not shown as the library does it, with the line at fault: a secret may stand there.
    let table: toml::Table = toml::from_str(&text).map_err(|error| {
        let line = error.span().map_or(0, |span| {
            text[..span.start.min(text.len())].matches('\n').count() + 1
        });
        format!("line {line} is no TOML: {}", error.message())
    })?;
    let value = Value::serialize(table).map_err(|error| error.to_string())?;
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

/// What Kubernetes puts into every pod for a service named `tacho-…`: none of ours.
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

fn insert(values: &mut Dict, path: &[String], text: &str) {
    let Some((last, tables)) = path.split_last() else {
        return;
    };
    let mut at = values;
    for name in tables {
        let table = at.entry(name.clone()).or_insert_with(|| Value::from(Dict::new()));
        if !matches!(table, Value::Dict(..)) {
            // `TACHO_KAFKA` beside `TACHO_KAFKA__PREFIX`: the one with the longer name counts.
            *table = Value::from(Dict::new());
        }
        let Value::Dict(_, inner) = table else { return };
        at = inner;
    }
    at.entry(last.clone()).or_insert_with(|| Value::from(text));
}

/// Takes a setting out, and tables that are empty then; false if it was not there.
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
            // An element stays where it is, without what is wrong with it: others are named by their places.
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

/// Makes `a.b.c = 1` of the table `a` with the table `b` in it, where names hold dots.
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
