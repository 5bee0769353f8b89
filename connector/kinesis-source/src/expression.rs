//! Update and condition expressions of DynamoDB, put together from parts.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use crate::kcl_row::Attributes;

/// What an update does and under which condition.
#[derive(Debug, Default)]
pub(crate) struct Expression {
    sets: Vec<String>,
    removes: Vec<String>,
    conditions: Vec<String>,
    names: HashMap<String, String>,
    values: Attributes,
}

impl Expression {
    fn name(&mut self, name: &str) -> String {
        let placeholder = format!("#{name}");
        self.names.insert(placeholder.clone(), name.to_owned());
        placeholder
    }

    fn value(&mut self, value: AttributeValue) -> String {
        let placeholder = format!(":v{}", self.values.len());
        self.values.insert(placeholder.clone(), value);
        placeholder
    }

    /// Puts a value, or removes the attribute.
    pub(crate) fn put(mut self, name: &str, value: Option<AttributeValue>) -> Self {
        let name = self.name(name);
        match value {
            Some(value) => {
                let value = self.value(value);
                self.sets.push(format!("{name} = {value}"));
            }
            None => self.removes.push(name),
        }
        self
    }

    /// Adds one to a number.
    pub(crate) fn count_up(mut self, name: &str) -> Self {
        let name = self.name(name);
        let zero = self.value(AttributeValue::N("0".to_owned()));
        let one = self.value(AttributeValue::N("1".to_owned()));
        self.sets
            .push(format!("{name} = if_not_exists({name}, {zero}) + {one}"));
        self
    }

    /// Only if the attribute has this value, or is absent.
    pub(crate) fn when(mut self, name: &str, value: Option<AttributeValue>) -> Self {
        let condition = self.is(name, value);
        self.conditions.push(condition);
        self
    }

    /// Only if `first` is absent and `second` has the value, or `first` has it.
    pub(crate) fn when_either(mut self, first: &str, second: &str, value: AttributeValue) -> Self {
        let first_is = self.is(first, Some(value.clone()));
        let first_absent = self.is(first, None);
        let second_is = self.is(second, Some(value));
        self.conditions
            .push(format!("({first_is} OR ({first_absent} AND {second_is}))"));
        self
    }

    fn is(&mut self, name: &str, value: Option<AttributeValue>) -> String {
        let name = self.name(name);
        match value {
            Some(value) => {
                let value = self.value(value);
                format!("{name} = {value}")
            }
            None => format!("attribute_not_exists({name})"),
        }
    }

    pub(crate) fn update(&self) -> Option<String> {
        let mut clauses = Vec::new();
        if !self.sets.is_empty() {
            clauses.push(format!("SET {}", self.sets.join(", ")));
        }
        if !self.removes.is_empty() {
            clauses.push(format!("REMOVE {}", self.removes.join(", ")));
        }
        (!clauses.is_empty()).then(|| clauses.join(" "))
    }

    pub(crate) fn condition(&self) -> Option<String> {
        (!self.conditions.is_empty()).then(|| self.conditions.join(" AND "))
    }

    /// Names and values used; no values is `None`, which the service wants so.
    pub(crate) fn into_parts(self) -> (Option<HashMap<String, String>>, Option<Attributes>) {
        (
            (!self.names.is_empty()).then_some(self.names),
            (!self.values.is_empty()).then_some(self.values),
        )
    }
}
