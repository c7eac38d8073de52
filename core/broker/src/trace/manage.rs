//! Starting, reading and ending traces. Needs `monitoring`, and `read` on what a filter names.

use std::sync::{Arc, atomic::Ordering};

use polymq_contract::{Refusal, RefusalKind};
use serde_json::{Value, json};

use super::{NewTrace, OVER_MAX, RUNNING_MAX, Trace, TraceEvent, TraceView};
use crate::{
    access::{Read, Role},
    management::Manager,
};

/// The longest trace, in ms.
const DURATION_MS_MAX: u64 = 600_000;
/// The most messages a second.
const RATE_MAX: u32 = 1000;

impl Manager {
    /// Starts a trace. `clock` gives steady nanoseconds.
    ///
    /// Errors: kind `Denied`; kind `NotFound` for the virtual host; kind `Invalid` for a bound that
    /// is none; kind `Limit` when there are three.
    pub fn start_trace(
        &self,
        new: NewTrace,
        clock: fn() -> u64,
        now_ms: u64,
    ) -> Result<TraceView, Refusal> {
        self.check_new_trace(&new)?;
        let traces = &self.core.traces;
        let mut all = traces.all.lock();
        if all.iter().filter(|trace| !trace.is_over()).count() >= RUNNING_MAX {
            let text = format!("{RUNNING_MAX} traces run; end one or wait");
            return Err(Refusal::new(RefusalKind::Limit, text));
        }
        while all.iter().filter(|trace| trace.is_over()).count() >= OVER_MAX
            && let Some(oldest) = all.iter().position(|trace| trace.is_over())
        {
            all.remove(oldest);
        }
        let id = traces.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let trace = Arc::new(Trace::new(id, self.principal().clone(), new, clock, now_ms));
        all.push(Arc::clone(&trace));
        traces.is_on.store(true, Ordering::Relaxed);
        drop(all);
        // Routes that are cached do not know of it.
        self.core.forget_trace(&trace);
        let view = trace.view();
        self.audit("trace.start", format!("/traces/{id}"), Value::Null, shown(&view));
        Ok(view)
    }

    /// Whether such a trace could be started, unless too many run.
    ///
    /// Errors: as of [`start_trace`](Self::start_trace).
    pub fn check_new_trace(&self, new: &NewTrace) -> Result<(), Refusal> {
        let filter = &new.filter;
        self.require_vhost(&filter.vhost, Role::Monitoring)?;
        let access = &self.core.access;
        for (kind, name) in [("queue", &filter.queue), ("exchange", &filter.exchange)] {
            if let Some(name) = name {
                access.permit::<Read>(self.principal(), &filter.vhost, kind, name)?;
            }
        }
        if !(1..=RATE_MAX).contains(&new.rate)
            || !(1..=DURATION_MS_MAX).contains(&new.duration_ms)
            || new.messages_max == 0
        {
            let text = "a trace takes 1 to 1000 messages a second, for up to 10 minutes";
            return Err(Refusal::new(RefusalKind::Invalid, text));
        }
        Ok(())
    }

    /// The traces that run, and the last ones that are over. Needs `monitoring`.
    ///
    /// Errors: kind `Denied`.
    pub fn traces(&self) -> Result<Vec<TraceView>, Refusal> {
        self.require(Role::Monitoring)?;
        Ok(self.core.traces.all.lock().iter().map(|trace| trace.view()).collect())
    }

    /// One trace. Needs `monitoring`.
    ///
    /// Errors: kind `Denied`, kind `NotFound`.
    pub fn trace(&self, id: u64) -> Result<TraceView, Refusal> {
        self.require(Role::Monitoring)?;
        Ok(self.find_trace(id)?.view())
    }

    /// What has happened to the messages of a trace after an event, `max` events at most. Only
    /// whoever has started it and administrators read that.
    ///
    /// Errors: kind `Denied`, kind `NotFound`.
    pub fn trace_events(
        &self,
        id: u64,
        after: u64,
        max: usize,
    ) -> Result<Vec<TraceEvent>, Refusal> {
        Ok(self.own_trace(id)?.events(after, max))
    }

    /// Ends a trace; one that is over is forgotten. Only whoever has started it and administrators
    /// may.
    ///
    /// Errors: kind `Denied`, kind `NotFound`.
    pub fn end_trace(&self, id: u64) -> Result<(), Refusal> {
        let trace = self.own_trace(id)?;
        let traces = &self.core.traces;
        if trace.is_over() {
            traces.all.lock().retain(|other| other.id != id);
        } else {
            trace.end("stopped");
        }
        let before = shown(&trace.view());
        self.core.tick_traces(0);
        self.audit("trace.end", format!("/traces/{id}"), before, Value::Null);
        Ok(())
    }

    fn find_trace(&self, id: u64) -> Result<Arc<Trace>, Refusal> {
        let all = self.core.traces.all.lock();
        let found = all.iter().find(|trace| trace.id == id).cloned();
        found.ok_or_else(|| Refusal::missing("trace", id.to_string(), format!("no trace {id}")))
    }

    fn own_trace(&self, id: u64) -> Result<Arc<Trace>, Refusal> {
        self.require(Role::Monitoring)?;
        let trace = self.find_trace(id)?;
        if trace.who.user != *self.user() {
            self.require(Role::Administrator)?;
            // Bodies were shown to whoever has started it, not to others.
            if trace.new.payload {
                let text = "a trace with payloads is for whoever has started it";
                return Err(Refusal::new(RefusalKind::Denied, text));
            }
        }
        Ok(trace)
    }
}

fn shown(view: &TraceView) -> Value {
    json!({
        "vhost": view.new.filter.vhost.as_str(),
        "payload": view.new.payload,
        "messages": view.messages,
    })
}
