//! The JSON Schemas of what is in a flow file: those that it is checked against, and the one for editors.

use flumen_core::task_kind::{Kinds, schema_of};
use serde_json::{Map, Value, json};

use super::fields::{FlowFields, GroupFields, HookFields, ParamFields, Shared, TaskFields};

/// The schemas that a file is checked against, part by part.
#[derive(Debug)]
pub(super) struct Schemas {
    pub flow: Value,
    pub param: Value,
    /// A task with all that its kinds add.
    pub task: Value,
    pub task_fields: Value,
    pub shared: Value,
    /// A hook with all that its kinds add.
    pub hook: Value,
    pub hook_fields: Value,
}

impl Schemas {
    pub fn of(kinds: &Kinds) -> Self {
        let (task_fields, shared, hook_fields) =
            (schema_of::<TaskFields>(), schema_of::<Shared>(), schema_of::<HookFields>());
        // What is in the value of a kind is checked with that kind.
        let keys = Value::Object(kinds.names().map(|name| (name.to_owned(), json!({}))).collect());
        let keys = json!({ "properties": keys });
        let mut flow = schema_of::<FlowFields>();
        // Tasks, parameters and hooks are looked at one by one.
        flow["patternProperties"] = json!({ "^x-": {} });
        Self {
            flow,
            param: schema_of::<ParamFields>(),
            task: closed(&[&task_fields, &shared, &keys]),
            task_fields,
            shared,
            hook: closed(&[&hook_fields, &keys]),
            hook_fields,
        }
    }
}

/// The schema of keys and values that has the properties of all `parts`, and no others.
fn closed(parts: &[&Value]) -> Value {
    let mut properties = Map::new();
    for part in parts {
        for (name, schema) in part["properties"].as_object().into_iter().flatten() {
            properties.insert(name.clone(), schema.clone());
        }
    }
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

/// The schema of flow files for editors, with the fields of all `kinds` in it.
pub(super) fn editor(kinds: &Kinds) -> Value {
    let mut definitions = Map::new();
    let mut hoist = |name: &str, mut schema: Value| {
        let inner = schema.as_object_mut().and_then(|map| map.remove("$defs"));
        for (inner_name, definition) in inner.as_ref().and_then(Value::as_object).into_iter().flatten() {
            let mut definition = definition.clone();
            rename(&mut definition, name);
            definitions.insert(format!("{name}.{inner_name}"), definition);
        }
        rename(&mut schema, name);
        schema
    };
    let mut of_kinds = Map::new();
    for name in kinds.names() {
        let (Some(kind), Some(schema)) = (kinds.get(name), kinds.schema(name)) else { continue };
        let mut schema = hoist(name, schema.clone());
        let bare = kind.bare_field().and_then(|field| schema["properties"].get(field).cloned());
        allow_templates(&mut schema);
        schema["description"] = json!(kind.about());
        if let Some(mut bare) = bare {
            allow_templates(&mut bare);
            let about = kind.about();
            schema = json!({ "description": about, "anyOf": [schema, bare] });
        }
        of_kinds.insert(name.to_owned(), schema);
    }
    let one_kind: Vec<Value> = kinds.names().map(|name| json!({ "required": [name] })).collect();
    let of_kinds = json!({ "properties": of_kinds });
    let with_kinds = |parts: &[&Value]| {
        let mut schema = closed(parts);
        if !one_kind.is_empty() {
            schema["oneOf"] = Value::Array(one_kind.clone());
        }
        schema
    };
    let (task, shared) = (hoist("task", schema_of::<TaskFields>()), hoist("shared", schema_of::<Shared>()));
    let mut task = with_kinds(&[&task, &shared, &of_kinds]);
    let hook = with_kinds(&[&hoist("hook", schema_of::<HookFields>()), &of_kinds]);
    let hooks =
        json!({ "anyOf": [{ "$ref": "#/$defs/hook" }, { "type": "array", "items": { "$ref": "#/$defs/hook" } }] });
    let mut group = hoist("group", schema_of::<GroupFields>());
    let mut flow = hoist("flow", schema_of::<FlowFields>());
    for schema in [&mut task, &mut flow] {
        for key in ["on_failure", "on_success", "on_retry", "on_late"] {
            replace(schema, key, hooks.clone());
        }
    }
    let tasks = json!({ "type": "object", "additionalProperties": { "$ref": "#/$defs/task" } });
    let param = json!({ "anyOf": [hoist("param", schema_of::<ParamFields>()), { "type": ["string", "number", "boolean", "array"] }] });
    replace(&mut flow, "tasks", tasks.clone());
    replace(&mut group, "tasks", tasks);
    replace(&mut flow, "params", json!({ "type": "object", "additionalProperties": { "$ref": "#/$defs/param" } }));
    replace(&mut flow, "groups", json!({ "type": "object", "additionalProperties": { "$ref": "#/$defs/group" } }));
    for (name, schema) in [("task", task), ("hook", hook), ("param", param), ("group", group)] {
        definitions.insert(name.to_owned(), schema);
    }
    flow["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    flow["title"] = json!("A flow of Flumen");
    flow["required"] = json!(["flow"]);
    flow["patternProperties"] = json!({ "^x-": {} });
    flow["$defs"] = Value::Object(definitions);
    flow
}

/// Puts another schema for a property in the place of the one that is there, and keeps what is said about it.
fn replace(schema: &mut Value, property: &str, mut with: Value) {
    let place = &mut schema["properties"][property];
    with["description"] = place["description"].take();
    *place = with;
}

/// References in a schema that moves into another one, where its definitions begin with `name`.
fn rename(schema: &mut Value, name: &str) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get_mut("$ref")
                && let Some(inner) = target.strip_prefix("#/$defs/")
            {
                *target = format!("#/$defs/{name}.{inner}");
            }
            map.values_mut().for_each(|inner| rename(inner, name));
        }
        Value::Array(items) => items.iter_mut().for_each(|inner| rename(inner, name)),
        _ => {}
    }
}

/// Lets a template stand wherever a schema wants something else than any text.
fn allow_templates(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    for key in ["properties", "$defs"] {
        map.get_mut(key).and_then(Value::as_object_mut).into_iter().flatten().for_each(|(_, inner)| wrap(inner));
    }
    for key in ["items", "additionalProperties"] {
        map.get_mut(key).into_iter().for_each(wrap);
    }
    for key in ["anyOf", "oneOf"] {
        map.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten().for_each(allow_templates);
    }
}

fn wrap(schema: &mut Value) {
    allow_templates(schema);
    let is_any_text = schema["type"] == "string" && schema.get("enum").is_none() && schema.get("const").is_none();
    if !schema.is_object() || is_any_text || schema.as_object().is_some_and(Map::is_empty) {
        return;
    }
    let about = schema.as_object_mut().and_then(|map| map.remove("description"));
    let inner = schema.take();
    *schema = json!({ "anyOf": [inner, { "type": "string", "pattern": "\\{[{%]" }] });
    if let Some(about) = about {
        schema["description"] = about;
    }
}
