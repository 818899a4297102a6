//! Parsers for the values of options.

use clap::builder::{PossibleValuesParser, TypedValueParser};

/// Parses one of `names`, the names that `T` has in recipes.
pub fn names<T>(names: &'static [&'static str]) -> impl TypedValueParser<Value = T>
where
    T: serde::de::DeserializeOwned + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(names).try_map(|s| serde_json::from_value::<T>(serde_json::Value::String(s)))
}

/// Parses a shape without open sizes.
pub fn shape(text: &str) -> Result<Vec<usize>, String> {
    let parsed: Result<Vec<usize>, _> = text.split(',').map(|d| d.trim().parse::<usize>()).collect();
    match parsed {
        Ok(shape) if shape.iter().all(|&d| d > 0) => Ok(shape),
        _ => Err("expected sizes above 0, separated by commas, such as 1,3,224,224".into()),
    }
}

/// Parses a percentage of 0 to 100.
pub fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(p) if (0.0..=100.0).contains(&p) => Ok(p),
        _ => Err("expected a percentage from 0 to 100".into()),
    }
}

/// Parses a number above 0.
pub fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&n| n > 0).ok_or_else(|| "expected a number above 0".into())
}

/// Parses `INDEX/COUNT`.
pub fn stripe(text: &str) -> Result<qdrop::plan::Stripe, String> {
    text.parse().map_err(|e: qdrop::Error| e.message().to_string())
}

/// Parses a score of 0 to 1.
pub fn score(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|s| (0.0..=1.0).contains(s)).ok_or_else(|| "expected a score from 0 to 1".into())
}

/// Parses `METRIC=PERCENT`.
pub fn threshold(text: &str) -> Result<(String, f64), String> {
    let (metric, least) = text.split_once('=').ok_or("expected a metric and a percentage, such as accuracy=85")?;
    // Correlations may be negative.
    match least.parse::<f64>() {
        Ok(least) if (-100.0..=100.0).contains(&least) => Ok((metric.to_string(), least)),
        _ => Err("expected a percentage from -100 to 100".into()),
    }
}

/// Parses `NAME=NUMBER` or `NAME=NUMBER,NUMBER,...`.
pub fn fixed(text: &str) -> Result<(String, Vec<f64>), String> {
    let number = |v: &str| match v.trim() {
        "true" => Ok(1.0),
        "false" => Ok(0.0),
        v => v.parse::<f64>(),
    };
    let parsed = text.rsplit_once('=').filter(|(name, _)| !name.is_empty());
    let parsed = parsed.map(|(name, values)| (name, values.split(',').map(number).collect::<Result<Vec<_>, _>>()));
    match parsed {
        Some((name, Ok(values))) => Ok((name.to_string(), values)),
        _ => Err("expected an input or a size with its value, such as gain=1.5 or seq=128".into()),
    }
}

/// Parses the name of a family of detectors.
pub fn family(text: &str) -> Result<String, String> {
    let family = text.parse::<qdrop::eval::detect::Family>().map_err(|e| e.message().to_string())?;
    Ok(family.as_str().to_string())
}
