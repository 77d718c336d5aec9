//! Programs to simple programs, of those that are.

use jaq_core::load::parse::{BinaryOp, Term};
use jaq_core::load::{self, lex::StrPart};
use jaq_core::ops::Cmp;
use jaq_core::path::{Opt, Part};

use super::parts::{Parts, Step};
use super::simple::{Change, Expr, Function, Literal, Member, Path, Read, Simple, Source};
use super::{MESSAGE, write};

/// Deepest nesting of a simple program: it is evaluated and dropped by recursion.
const DEPTH_MAX: usize = 200;

/// The functions, by name and number of arguments.
const FUNCTIONS: &[(&str, usize, Function)] = &[
    ("type", 0, Function::Type),
    ("length", 0, Function::Length),
    ("tostring", 0, Function::ToString),
    ("tojson", 0, Function::ToJson),
    ("tonumber", 0, Function::ToNumber),
    ("startswith", 1, Function::StartsWith),
    ("endswith", 1, Function::EndsWith),
    ("contains", 1, Function::Contains),
    ("has", 1, Function::Has),
    ("test", 1, Function::Test),
    ("test", 2, Function::Test),
    ("ascii_downcase", 0, Function::Lowercase),
    ("ascii_upcase", 0, Function::Uppercase),
];

/// What a program's result is used for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Truth,
    Value,
}

/// What `.` is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Body,
    Piped,
}

/// The program, if it is a simple one.
pub(super) fn of(text: &str, result: Use) -> Option<Simple> {
    let term = load::parse(text, |parser| parser.term())?;
    let mut compiler = Compiler::default();
    let expr = compiler.expr(&term, Scope::Body, result)?;
    Some(Simple { expr, body: source(compiler.body), message: source(compiler.message) })
}

fn source(paths: Vec<Path>) -> Source {
    let steps: Vec<_> = paths.iter().map(|path| path.steps.clone()).collect();
    let (parts, places) = Parts::of(&steps);
    let reads = paths.into_iter().zip(places).map(|(path, place)| Read { place, path });
    Source { parts, reads: reads.collect() }
}

#[derive(Default)]
struct Compiler {
    /// Paths that are read of the body.
    body: Vec<Path>,
    message: Vec<Path>,
    depth: usize,
}

type Tree<'a> = Term<&'a str>;

impl Compiler {
    fn expr(&mut self, term: &Tree<'_>, scope: Scope, result: Use) -> Option<Expr> {
        self.depth += 1;
        let expr = (self.depth <= DEPTH_MAX).then(|| self.term(term, scope, result)).flatten();
        self.depth -= 1;
        expr
    }

    fn boxed(&mut self, term: &Tree<'_>, scope: Scope, result: Use) -> Option<Box<Expr>> {
        self.expr(term, scope, result).map(Box::new)
    }

    fn term(&mut self, term: &Tree<'_>, scope: Scope, result: Use) -> Option<Expr> {
        Some(match term {
            Term::Id => self.input(scope, result),
            Term::Num(text) => Expr::Literal(number(text)),
            Term::Var(MESSAGE) => Expr::Message(number_of(&mut self.message, Path::default())),
            Term::Str(None, parts) => match literal(parts) {
                Some(text) => Expr::Literal(Literal::Text(text)),
                None => Expr::Text(self.parts_of_text(parts, scope)?),
            },
            Term::Arr(None) => Expr::List(Vec::new()),
            Term::Arr(Some(items)) => Expr::List(self.listed(items, scope)?),
            Term::Obj(entries) => Expr::Object(self.members(entries, scope)?),
            Term::Neg(of) => match self.expr(of, scope, Use::Value)? {
                Expr::Literal(Literal::Int(int)) if int > i64::MIN => {
                    Expr::Literal(Literal::Int(-int))
                }
                other => Expr::Negate(Box::new(other)),
            },
            Term::BinOp(left, op, right) => self.operation(left, op, right, scope, result)?,
            Term::IfThenElse(branches, _) if branches.len() > DEPTH_MAX => return None,
            Term::IfThenElse(branches, otherwise) => {
                let mut expr = match otherwise {
                    Some(otherwise) => self.expr(otherwise, scope, result)?,
                    None => self.input(scope, result),
                };
                for (test, then) in branches.iter().rev() {
                    let test = self.boxed(test, scope, Use::Truth)?;
                    let then = self.boxed(then, scope, result)?;
                    expr = Expr::If(test, then, Box::new(expr));
                }
                expr
            }
            // An error is left to the interpreter anyway.
            Term::TryCatch(of, _) => self.expr(of, scope, result)?,
            Term::Path(of, path) => {
                let path = path_of(&path.0)?;
                match &**of {
                    Term::Id if scope == Scope::Body => Expr::Body(number_of(&mut self.body, path)),
                    Term::Var(MESSAGE) => Expr::Message(number_of(&mut self.message, path)),
                    of => Expr::Part(self.boxed(of, scope, Use::Value)?, path),
                }
            }
            Term::Call(name, args) => self.call(name, args, scope, result)?,
            _ => return None,
        })
    }

    fn input(&mut self, scope: Scope, result: Use) -> Expr {
        match (scope, result) {
            (Scope::Body, Use::Truth) => Expr::BodyIsTrue,
            (Scope::Body, Use::Value) => Expr::Body(number_of(&mut self.body, Path::default())),
            (Scope::Piped, _) => Expr::Input,
        }
    }

    fn operation(
        &mut self,
        left: &Tree<'_>,
        op: &BinaryOp<&str>,
        right: &Tree<'_>,
        scope: Scope,
        result: Use,
    ) -> Option<Expr> {
        let value = Use::Value;
        Some(match op {
            BinaryOp::Pipe(None) => match left {
                Term::Id => self.expr(right, scope, result)?,
                // Its result is its own input.
                Term::Call("select", args) => {
                    let [test] = &**args else { return None };
                    let test = self.boxed(test, scope, Use::Truth)?;
                    Expr::When(test, self.boxed(right, scope, result)?)
                }
                _ => {
                    let left = self.boxed(left, scope, value)?;
                    Expr::Pipe(left, self.boxed(right, Scope::Piped, result)?)
                }
            },
            BinaryOp::Or | BinaryOp::And => {
                let left = self.boxed(left, scope, Use::Truth)?;
                let right = self.boxed(right, scope, Use::Truth)?;
                Expr::Logic(left, matches!(op, BinaryOp::Or), right)
            }
            BinaryOp::Alt => {
                let left = self.boxed(left, scope, result)?;
                Expr::Alternative(left, self.boxed(right, scope, result)?)
            }
            BinaryOp::Cmp(op) => {
                let left = self.expr(left, scope, value)?;
                let right = self.expr(right, scope, value)?;
                match (left, right) {
                    (left, Expr::Literal(right)) => {
                        Expr::CompareLiteral(Box::new(left), *op, right)
                    }
                    (Expr::Literal(left), right) => {
                        Expr::CompareLiteral(Box::new(right), turned(*op), left)
                    }
                    (left, right) => Expr::Compare(Box::new(left), *op, Box::new(right)),
                }
            }
            BinaryOp::Math(op) => {
                let left = self.boxed(left, scope, value)?;
                Expr::Calculate(left, *op, self.boxed(right, scope, value)?)
            }
            BinaryOp::Assign | BinaryOp::Update | BinaryOp::UpdateMath(_) | BinaryOp::UpdateAlt => {
                let scope_of_right =
                    if matches!(op, BinaryOp::Update) { Scope::Piped } else { scope };
                let right = self.boxed(right, scope_of_right, value)?;
                let change = match op {
                    BinaryOp::Update => Change::Map(right),
                    BinaryOp::UpdateMath(op) => Change::Calculate(*op, right),
                    BinaryOp::UpdateAlt => Change::Default(right),
                    _ => Change::Set(right),
                };
                self.update(left, scope, change)?
            }
            BinaryOp::Comma | BinaryOp::Pipe(Some(_)) => return None,
        })
    }

    fn update(&mut self, parts: &Tree<'_>, scope: Scope, change: Change) -> Option<Expr> {
        let paths = between_commas(parts).into_iter().map(|part| match part {
            Term::Path(of, path) if matches!(**of, Term::Id) => path_of(&path.0),
            _ => None,
        });
        let paths = paths.collect::<Option<_>>()?;
        Some(Expr::Update(Box::new(self.input(scope, Use::Value)), paths, change))
    }

    fn call(&mut self, name: &str, args: &[Tree<'_>], scope: Scope, result: Use) -> Option<Expr> {
        Some(match (name, args) {
            ("null", []) => Expr::Literal(Literal::Null),
            ("true", []) => Expr::Literal(Literal::Bool(true)),
            ("false", []) => Expr::Literal(Literal::Bool(false)),
            ("empty", []) => Expr::Nothing,
            ("error", [] | [_]) => Expr::Error,
            ("not", []) => Expr::Not(Box::new(self.input(scope, Use::Truth))),
            ("select", [test]) => {
                let test = self.boxed(test, scope, Use::Truth)?;
                Expr::When(test, Box::new(self.input(scope, result)))
            }
            ("del", [parts]) => self.update(parts, scope, Change::Delete)?,
            ("IN", [ones]) => {
                let ones = self.listed(ones, scope)?;
                Expr::In(Box::new(self.input(scope, Use::Value)), ones)
            }
            ("any" | "all", [of @ .., test]) => {
                let items = match of {
                    [] => self.input(scope, Use::Value),
                    [items] => self.items(items, scope)?,
                    _ => return None,
                };
                let test = self.boxed(test, Scope::Piped, Use::Truth)?;
                let any = Expr::Any(Box::new(items), test, name == "any");
                if name == "any" { any } else { Expr::Not(Box::new(any)) }
            }
            _ => {
                let known = FUNCTIONS.iter();
                let mut known =
                    known.filter(|(one, count, _)| *one == name && *count == args.len());
                let (_, _, function) = known.next()?;
                let args = args.iter().map(|arg| self.expr(arg, scope, Use::Value));
                let args = args.collect::<Option<_>>()?;
                Expr::Call(*function, Box::new(self.input(scope, Use::Value)), args)
            }
        })
    }

    /// What a term such as `.tags[]` has the items of.
    fn items(&mut self, term: &Tree<'_>, scope: Scope) -> Option<Expr> {
        let Term::Path(of, path) = term else {
            return None;
        };
        let ((Part::Range(None, None), Opt::Essential), path) = path.0.split_last()? else {
            return None;
        };
        let path = path_of(path)?;
        Some(match &**of {
            Term::Id if scope == Scope::Body => Expr::Body(number_of(&mut self.body, path)),
            of => Expr::Part(self.boxed(of, scope, Use::Value)?, path),
        })
    }

    fn listed(&mut self, term: &Tree<'_>, scope: Scope) -> Option<Vec<Expr>> {
        let terms = between_commas(term).into_iter();
        terms.map(|term| self.expr(term, scope, Use::Value)).collect()
    }

    fn members(
        &mut self,
        entries: &[(Tree<'_>, Option<Tree<'_>>)],
        scope: Scope,
    ) -> Option<Vec<Member>> {
        let mut members: Vec<Member> = Vec::new();
        for (key, value) in entries {
            let Term::Str(None, key) = key else {
                return None;
            };
            let key = literal(key)?;
            if members.iter().any(|one| one.key == key) {
                return None;
            }
            let path = || Path { steps: vec![Step::Key(key.clone())], optional: vec![false] };
            let value = match (value, scope) {
                (Some(value), _) => self.expr(value, scope, Use::Value)?,
                // `{a}` is `{a: .a}`.
                (None, Scope::Body) => Expr::Body(number_of(&mut self.body, path())),
                (None, Scope::Piped) => Expr::Part(Box::new(Expr::Input), path()),
            };
            let mut written = Vec::new();
            if !members.is_empty() {
                written.push(b',');
            }
            write::string(&mut written, &key);
            written.push(b':');
            members.push(Member { key, written, value });
        }
        Some(members)
    }

    fn parts_of_text(
        &mut self,
        parts: &[StrPart<&str, Tree<'_>>],
        scope: Scope,
    ) -> Option<Vec<Expr>> {
        let parts = parts.iter().map(|part| match part {
            StrPart::Str(part) => Some(Expr::Literal(Literal::Text((*part).to_owned()))),
            StrPart::Char(char) => Some(Expr::Literal(Literal::Text((*char).into()))),
            StrPart::Term(term) => self.expr(term, scope, Use::Value),
        });
        parts.collect()
    }
}

/// The terms between commas.
fn between_commas<'t, 's>(term: &'t Tree<'s>) -> Vec<&'t Tree<'s>> {
    let (mut all, mut rest) = (Vec::new(), vec![term]);
    while let Some(term) = rest.pop() {
        match term {
            Term::BinOp(left, BinaryOp::Comma, right) => rest.extend([&**right, &**left]),
            term => all.push(term),
        }
    }
    all
}

/// Number of a path among others, to which it is added if it is new.
fn number_of(paths: &mut Vec<Path>, path: Path) -> usize {
    paths.iter().position(|one| *one == path).unwrap_or_else(|| {
        paths.push(path);
        paths.len() - 1
    })
}

fn path_of(parts: &[(Part<Tree<'_>>, Opt)]) -> Option<Path> {
    // Its tree is as deep, and no value is deeper.
    if parts.len() > DEPTH_MAX {
        return None;
    }
    let mut path = Path::default();
    for (part, opt) in parts {
        path.steps.push(match part {
            Part::Index(Term::Str(None, key)) => Step::Key(literal(key)?),
            Part::Index(index) => Step::Index(integer(index)?),
            Part::Range(..) => return None,
        });
        path.optional.push(matches!(opt, Opt::Optional));
    }
    Some(path)
}

fn integer(term: &Tree<'_>) -> Option<i64> {
    match term {
        Term::Num(text) => text.parse().ok(),
        Term::Neg(of) => match &**of {
            Term::Num(text) => text.parse().ok().and_then(i64::checked_neg),
            _ => None,
        },
        _ => None,
    }
}

fn number(text: &str) -> Literal {
    // As the interpreter does it.
    text.parse().map_or_else(|_| Literal::Number(text.to_owned()), Literal::Int)
}

/// The comparison with its sides exchanged.
fn turned(op: Cmp) -> Cmp {
    match op {
        Cmp::Lt => Cmp::Gt,
        Cmp::Le => Cmp::Ge,
        Cmp::Gt => Cmp::Lt,
        Cmp::Ge => Cmp::Le,
        Cmp::Eq => Cmp::Eq,
        Cmp::Ne => Cmp::Ne,
    }
}

/// The text of a string without interpolations.
pub(super) fn literal(parts: &[StrPart<&str, Tree<'_>>]) -> Option<String> {
    parts.iter().try_fold(String::new(), |mut text, part| {
        match part {
            StrPart::Str(part) => text.push_str(part),
            StrPart::Char(char) => text.push(*char),
            StrPart::Term(_) => return None,
        }
        Some(text)
    })
}
