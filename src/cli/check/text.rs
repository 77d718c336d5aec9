//! The report of `rillway check` as text.

use std::fmt;

use super::{CheckPlan, ConsumerPlan, PartitionPlan, ResumeReport};
use crate::config::ByteSize;

impl fmt::Display for CheckPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            let watches = self.watches.iter().filter(|watch| watch.problem.is_some()).count();
            match self.consumers.iter().filter(|c| c.problem.is_some()).count() {
                0 if watches > 0 => writeln!(
                    f,
                    "{}: can be read, but {watches} of {} watches could not run",
                    file.display(),
                    self.watches.len()
                )?,
                0 => writeln!(f, "{}: fine", file.display())?,
                n => writeln!(
                    f,
                    "{}: can be read, but {n} of {} consumers could not run",
                    file.display(),
                    self.consumers.len()
                )?,
            }
        }
        let tls = match (self.tls, self.insecure) {
            (true, true) => {
                ", encrypted, but INSECURE: any certificate is accepted (insecure_skip_verify)"
            }
            (true, false) => ", encrypted",
            (false, _) => "",
        };
        let (user, vhost) = (&self.username, &self.vhost);
        writeln!(f, "broker:  {} as {user:?}, vhost {vhost:?}{tls}", self.broker.join(", "))?;
        if let Some(token) = &self.token {
            writeln!(f, "login:   with access tokens ({token})")?;
        }
        if self.protocol == "amqp" {
            writeln!(
                f,
                "         over AMQP 0.9.1: positions are in the sinks that keep one, or else in `state`, which has to be permanent then; the lag is unknown"
            )?;
        }
        writeln!(f, "admin:   {}", self.admin.as_deref().unwrap_or("off"))?;
        for concern in &self.admin_concerns {
            writeln!(f, "         NOTE: {concern}")?;
        }
        if let Some(collector) = &self.traces {
            writeln!(f, "traces:  to {collector}")?;
        }
        for concern in &self.traces_concerns {
            writeln!(f, "         NOTE: {concern}")?;
        }
        if self.consumers.is_empty() {
            return self.watches.iter().try_for_each(|watch| write!(f, "\n{watch}"));
        }
        writeln!(f, "state:   {}", self.state_dir.display())?;
        if let Some(what) = &self.state_dir_problem {
            writeln!(f, "         PROBLEM for the user who checks: {what}")?;
        }
        let bound = rounded_up(self.memory_bound_bytes);
        let is_open = |c: &ConsumerPlan| c.is_super_stream && c.partitions.is_none();
        let of_one = match self.consumers.iter().any(is_open) {
            true => ", counting one partition of a super stream (ask with --connect)",
            false => "",
        };
        writeln!(f, "memory:  at most {bound} for all consumers{of_one}")?;
        self.consumers.iter().try_for_each(|consumer| write!(f, "\n{consumer}"))?;
        self.watches.iter().try_for_each(|watch| write!(f, "\n{watch}"))
    }
}

impl fmt::Display for ConsumerPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "consumer {:?}", self.name)?;
        let source = if self.is_super_stream { "super:      " } else { "stream:     " };
        writeln!(f, "  {source}{:?}, reference {:?}", self.stream, self.reference)?;
        let one = match (self.single_active, self.is_super_stream) {
            (false, _) => None,
            (true, false) => Some("one of all daemons with this reference, chosen by the broker"),
            (true, true) => Some(
                "for each partition, one of all daemons with this reference, chosen by the broker",
            ),
        };
        if let Some(one) = one {
            writeln!(f, "  active:     {one}")?;
        }
        if let Some(filter) = &self.filter {
            writeln!(f, "  filter:     {filter}")?;
        }
        for (key, program) in [("where", &self.keep), ("map", &self.reshape)] {
            if let Some(program) = program {
                // Indented, where it has several lines.
                let program = program.trim().replace('\n', "\n              ");
                writeln!(f, "  {:<11} {program}", format!("{key}:"))?;
            }
        }
        match &self.to {
            Some(to) => writeln!(f, "  sink:       {}, {}", self.sink, to.display())?,
            None => writeln!(f, "  sink:       {}", self.sink)?,
        }
        if let Some(rows) = &self.rows {
            writeln!(f, "  rows:       {rows}")?;
        }
        writeln!(f, "  guarantee:  {}", self.guarantee)?;
        match &self.dead_letters {
            Some((kind, Some(to))) => writeln!(f, "  dead:       {kind}, {}", to.display())?,
            Some((kind, None)) => writeln!(f, "  dead:       {kind}")?,
            None => {}
        }
        if let Some(create) = &self.create {
            writeln!(f, "  create:     {create}")?;
        }
        let bound = rounded_up(self.memory_bound_bytes);
        match (self.is_super_stream, &self.partitions) {
            (false, _) => writeln!(f, "  memory:     at most {bound}")?,
            (true, None) => writeln!(f, "  memory:     at most {bound} for each partition")?,
            (true, Some(all)) => {
                writeln!(f, "  memory:     at most {bound} for {} partitions", all.len())?;
                for PartitionPlan { stream, resume, problem } in all {
                    match (resume, problem) {
                        (Some(ResumeReport { position, why, .. }), _) => {
                            writeln!(f, "  partition:  {stream:?}, resumes {position} ({why})")?;
                        }
                        (None, problem) => {
                            let what = problem.as_deref().unwrap_or("unknown");
                            writeln!(f, "  partition:  {stream:?}, PROBLEM: {what}")?;
                        }
                    }
                }
                return Ok(());
            }
        }
        match (&self.resume, &self.problem) {
            (Some(resume), _) => writeln!(f, "  resumes:    {} ({})", resume.position, resume.why),
            (None, Some(problem)) => writeln!(f, "  PROBLEM:    {problem}"),
            (None, None) => writeln!(
                f,
                "  resumes:    after its position, or else at {} (ask with --connect)",
                self.start
            ),
        }
    }
}

/// Rounded up to whole MiB: still an upper bound, and easier to read.
fn rounded_up(bytes: u64) -> ByteSize {
    ByteSize::mib(bytes.div_ceil(1 << 20))
}
