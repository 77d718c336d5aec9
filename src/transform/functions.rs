//! Functions of simple programs.

use jaq_core::{ValR, ValT as _};

use super::glimpse::Undecided;
use super::simple::Function;
use super::value::Value;
use super::{natives, regexes, write};

/// A result of a function, whose errors the interpreter tells.
pub(super) fn known(result: ValR<Value>) -> Result<Value, Undecided> {
    result.map_err(|_| Undecided)
}

impl Function {
    pub(super) fn call(self, of: &Value, args: &[Value]) -> Result<Value, Undecided> {
        let text = || match of {
            Value::Str(text) => Ok(text),
            _ => Err(Undecided),
        };
        Ok(match (self, args) {
            (Function::Type, _) => Value::text(match of {
                Value::Null => "null",
                Value::Bool(_) => "boolean",
                Value::Num(_) => "number",
                Value::Str(_) => "string",
                Value::Arr(_) => "array",
                Value::Obj(_) => "object",
            }),
            (Function::Length, _) => known(natives::length(of))?,
            (Function::ToString, _) => of.clone().into_string(),
            (Function::ToJson, _) => write::text(of),
            (Function::ToNumber, _) => known(natives::to_number(of.clone()))?,
            (Function::StartsWith, [Value::Str(part)]) => text()?.starts_with(&**part).into(),
            (Function::EndsWith, [Value::Str(part)]) => text()?.ends_with(&**part).into(),
            (Function::Contains, [part]) => {
                natives::contains(of, part).map_err(|_| Undecided)?.into()
            }
            (Function::Has, [key]) => known(natives::has(of, key))?,
            (Function::Test, [Value::Str(regex), flags @ ..]) => {
                let flags = match flags.first() {
                    None | Some(Value::Null) => "",
                    Some(Value::Str(flags)) => flags,
                    _ => return Err(Undecided),
                };
                regexes::is_found(text()?, regex, flags).map_err(|_| Undecided)?.into()
            }
            (Function::Lowercase, _) => Value::text(text()?.to_ascii_lowercase()),
            (Function::Uppercase, _) => Value::text(text()?.to_ascii_uppercase()),
            _ => return Err(Undecided),
        })
    }
}
