use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::load::Loaded;
use crate::diagnostic::Diagnostics;
use crate::fleet::{Declarations, Declared, HostRun, Refused};
use crate::lang::{Facts, OwnFact, with_own_facts};
use crate::project::Compiled;
use crate::wire::{Answer, Question};

/// What the project declares, for the fleet.
pub(super) struct Declaring {
    pub(super) loaded: Arc<Loaded>,
    /// Hosts that may be asked for their facts alone.
    pub(super) beside: Arc<HashMap<String, HostRun>>,
    /// Takes what is wrong with the input.
    pub(super) diagnostics: Arc<Mutex<Diagnostics>>,
}

impl Declaring {
    /// Hands on what is wrong. Warnings were said before the connection.
    fn refuse(&self, found: Diagnostics) -> Result<(), Refused> {
        if !found.has_errors() {
            return Ok(());
        }
        self.diagnostics.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
        Err(Refused)
    }

    fn own_facts(&self, host: &str, facts: &str) -> Result<Vec<OwnFact>, Refused> {
        let mut found = Diagnostics::default();
        let compilation = &self.loaded.compilation;
        let questions = compilation.questions(host, &parsed(facts), &mut found);
        self.refuse(found)?;
        Ok(questions)
    }
}

/// That a host's facts are JSON was looked at when they came.
fn parsed(facts: &str) -> serde_json::Value {
    serde_json::from_str(facts).unwrap_or_default()
}

impl Declarations for Declaring {
    fn questions(&self, host: &str, facts: &str) -> Result<Vec<Question>, Refused> {
        let own = self.own_facts(host, facts)?;
        if self.loaded.untrusted {
            return Ok(Vec::new());
        }
        let question = |fact: OwnFact| Question {
            argv: fact.argv,
            become_user: fact.become_user,
            environment: fact.environment,
            timeout: fact.timeout,
        };
        Ok(own.into_iter().map(question).collect())
    }

    fn learn(&self, host: &str, facts: &str, answers: Option<Vec<Answer>>) -> Result<(), String> {
        let compilation = &self.loaded.compilation;
        let own = self.own_facts(host, facts).unwrap_or_default();
        let facts = parsed(facts);
        let Some(answers) = answers else {
            let unasked: Vec<String> = own.into_iter().map(|fact| fact.name).collect();
            let facts = if unasked.is_empty() {
                Facts::Known(facts)
            } else {
                Facts::Partly(facts, unasked)
            };
            compilation.learn(host, facts);
            return Ok(());
        };
        let mut values = Vec::new();
        for (fact, answer) in own.into_iter().zip(answers) {
            let answer = answer.as_deref().map_err(String::as_str);
            let value = fact.value(answer).map_err(|error| {
                let mut message = format!("the fact `{}` ", fact.name);
                message.push_str(&format!("({}): ", compilation.sources.place(fact.span)));
                for (line, number) in error.lines().zip(0..) {
                    message.push_str(if number > 0 { "\n    " } else { "" });
                    crate::change::sanitize(line, &mut message);
                }
                message
            })?;
            values.push((fact.name, value));
        }
        let facts = with_own_facts(facts, values);
        compilation.learn(host, Facts::Known(Arc::unwrap_or_clone(facts)));
        Ok(())
    }

    fn wanted(&self) -> Vec<String> {
        self.loaded.compilation.wanted()
    }

    fn spans_hosts(&self) -> bool {
        self.loaded.compilation.spans_hosts()
    }

    fn reach(&self, host: &str) -> Result<HostRun, String> {
        let reach = self.beside.get(host).cloned();
        reach.ok_or_else(|| {
            let message = "whether its facts are needed shows only with facts of others, or the \
                           inventory does not say how it is reached";
            String::from(message)
        })
    }

    fn compile(&self, host: &str) -> Result<Declared, Refused> {
        let mut found = Diagnostics::default();
        let compiled = self.loaded.compilation.compile(host, &mut found);
        self.refuse(found)?;
        Ok(match compiled {
            Compiled::Graph(graph) => Declared::Graph(graph),
            Compiled::Lacks(hosts) => Declared::Lacks(hosts),
        })
    }
}
