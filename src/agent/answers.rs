//! What the project wants to know of the host: commands that only read.

use std::time::Duration;

use crate::wire::{Answer, Question};
use crate::world::Host;
use crate::world::process::{self, Identity, Job, OUTPUT_LIMIT};

/// Commands that run at the same time.
const AT_ONCE: usize = 8;

/// The answers in the order of the questions.
pub(super) fn answers(questions: &[Question], host: &Host, login: &Identity) -> Vec<Answer> {
    let mut answers = Vec::with_capacity(questions.len());
    for some in questions.chunks(AT_ONCE) {
        std::thread::scope(|scope| {
            let asked: Vec<_> =
                some.iter().map(|one| scope.spawn(|| answer(one, host, login))).collect();
            for one in asked {
                match one.join() {
                    Ok(answer) => answers.push(answer),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        });
    }
    answers
}

fn answer(question: &Question, host: &Host, login: &Identity) -> Answer {
    let identity = match &question.become_user {
        None => login.clone(),
        Some(name) => host.identity(name).map_err(|error| error.to_string())?,
    };
    let job = Job {
        argv: question.argv.clone(),
        environment: question.environment.clone(),
        timeout: Some(Duration::from_millis(question.timeout)),
        ..Job::default()
    };
    let answer = process::run(&job, &identity).map_err(|error| error.to_string())?;
    if answer.code != 0 {
        return Err(super::act::ended_badly("its command", &answer));
    }
    if answer.output.len() >= OUTPUT_LIMIT {
        return Err(format!("its command writes more than {} KiB", OUTPUT_LIMIT >> 10));
    }
    Ok(answer.output)
}
