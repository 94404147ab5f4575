//! What containers may use, and volumes hold.

use serde_json::Value;

use super::super::super::Cause;
use crate::quantity::{self, RULE};

const SIDES: [&str; 2] = ["limits", "requests"];

/// Writes those of a pod's spec that are given as numbers as the API server does, as texts.
///
/// # Errors
/// Which one is no amount.
pub(in super::super) fn read(spec: &mut Value, at: &str) -> Result<(), String> {
    for list in ["containers", "initContainers"] {
        for (index, container) in items(spec, list).enumerate() {
            for side in SIDES {
                let amounts = container.pointer_mut(&format!("/resources/{side}")).and_then(Value::as_object_mut);
                for (name, amount) in amounts.into_iter().flatten() {
                    read_one(amount, || format!("{at}.{list}[{index}].resources.{side}.{name}"))?;
                }
            }
        }
    }
    for (index, volume) in items(spec, "volumes").enumerate() {
        if let Some(limit) = volume.pointer_mut("/emptyDir/sizeLimit") {
            read_one(limit, || format!("{at}.volumes[{index}].emptyDir.sizeLimit"))?;
        }
    }
    Ok(())
}

fn items<'a>(spec: &'a mut Value, list: &str) -> impl Iterator<Item = &'a mut Value> {
    spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten()
}

fn read_one(amount: &mut Value, field: impl FnOnce() -> String) -> Result<(), String> {
    if quantity::parse(amount).is_none() {
        return Err(format!("{}: {amount}: {RULE}", field()));
    }
    if amount.is_number() {
        *amount = amount.to_string().into();
    }
    Ok(())
}

/// Nothing is less than nothing, and nobody is promised more than it may have.
pub(super) fn check(at: &str, resources: &Value, causes: &mut Vec<Cause>) {
    for side in SIDES {
        for (name, amount) in resources[side].as_object().into_iter().flatten() {
            if quantity::parse(amount).is_some_and(|amount| amount < 0.) {
                let rule = "must be greater than or equal to 0";
                causes.push(Cause::invalid(format!("{at}.resources.{side}[{name}]"), amount.clone(), rule));
            }
        }
    }
    for (name, asked) in resources["requests"].as_object().into_iter().flatten() {
        let Some(limit) = resources["limits"].get(name) else { continue };
        if quantity::parse(asked) > quantity::parse(limit) {
            let rule = format!("must be less than or equal to {name} limit of {}", limit.as_str().unwrap_or_default());
            causes.push(Cause::invalid(format!("{at}.resources.requests"), asked.clone(), &rule));
        }
    }
}
