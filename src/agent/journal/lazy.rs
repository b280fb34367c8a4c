use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// A part of a JSON document that is not taken apart before it is needed: most runs change nothing,
/// and need little of what a host remembers.
#[derive(Clone, Debug)]
pub(in crate::agent) enum Lazy<T> {
    Text(Box<RawValue>),
    Known(T),
}

impl<T: Clone + DeserializeOwned> Lazy<T> {
    /// The value; none if the text is not one.
    pub(in crate::agent) fn get(&self) -> Option<Cow<'_, T>> {
        match self {
            Self::Text(text) => serde_json::from_str(text.get()).ok().map(Cow::Owned),
            Self::Known(value) => Some(Cow::Borrowed(value)),
        }
    }

    /// The value, to be changed.
    pub(in crate::agent) fn get_mut(&mut self) -> Option<&mut T> {
        if let Self::Text(text) = self {
            *self = Self::Known(serde_json::from_str(text.get()).ok()?);
        }
        match self {
            Self::Known(value) => Some(value),
            Self::Text(_) => None,
        }
    }
}

impl<T: Serialize> Serialize for Lazy<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => text.serialize(serializer),
            Self::Known(value) => value.serialize(serializer),
        }
    }
}

impl<'de, T> Deserialize<'de> for Lazy<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(Self::Text)
    }
}
