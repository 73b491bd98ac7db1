//! `POST /v1/explain`: frames, as the running balancer would treat them. One request at a time is answered, over private
//! tables that it takes with it when it ends.

use super::{
    fault::Fault,
    routes::{Answer, Call, Context, blocking},
};
use crate::{
    bpf::LoadError,
    explain::{Engine, ExplainError, Explainer, KernelError, frames::Frame, line::Told},
    service::Service,
};
use hyper::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::{Mutex, TryLockError};

/// Frames of a request: what private tables have room for, and a connection time.
pub const FRAMES_MAX: usize = 4096;

/// Frames that are to be explained.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ExplainRequest {
    /// Who decides; the kernel where nobody is named, or the host where the kernel refuses.
    pub engine: Option<Engine>,
    /// The frames, in order.
    pub frames: Vec<Asked>,
}

/// A frame, or why there is none.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Asked {
    /// A frame.
    Frame(Frame),
    /// What was captured cannot be explained; the sentence comes back in its place.
    Unfit {
        /// Why.
        error: String,
    },
}

/// Frames that were explained.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ExplainAnswer {
    /// Who decided.
    pub engine: Engine,
    /// What is not as it is on the wire, in sentences.
    pub notes: Vec<String>,
    /// The frames.
    pub frames: Vec<Told>,
}

impl From<ExplainError> for Fault {
    fn from(error: ExplainError) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

pub(super) fn answer(context: Context, call: Call) -> Answer {
    blocking(move || {
        let request: ExplainRequest = serde_json::from_slice(&call.body)
            .map_err(|error| Fault::bad_request(format!("these are no frames: {error}")))?;
        if request.frames.len() > FRAMES_MAX {
            return Err(Fault::bad_request(format!(
                "{} frames are more than the {FRAMES_MAX} that a running balancer explains at once; take a part of the \
                 capture, or explain it with --config",
                request.frames.len()
            )));
        }
        explain(&context.service, &request)
    })
}

fn explain(service: &Service, request: &ExplainRequest) -> Result<ExplainAnswer, Fault> {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = match TURN.try_lock() {
        Ok(turn) => turn,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return Err(Fault::conflict("another explanation is under way; try again")),
    };
    let (engine, mut explainer) = start(service, request.engine)?;
    let told = request.frames.iter().map(|asked| {
        let fitted = match asked {
            Asked::Frame(frame) => Ok(frame.clone()),
            Asked::Unfit { error } => Err(error.clone()),
        };
        explainer.explain(&fitted)
    });
    let frames = told.collect::<Result<_, _>>()?;
    Ok(ExplainAnswer { engine, notes: explainer.notes().to_vec(), frames })
}

fn start(service: &Service, engine: Option<Engine>) -> Result<(Engine, Explainer), Fault> {
    let with = |engine| -> Result<_, Fault> {
        let (plan, live) = service.to_explain()?;
        Ok(Explainer::new(plan, Some(live), engine))
    };
    match (engine, with(engine.unwrap_or(Engine::Kernel))?) {
        (engine, Ok(explainer)) => Ok((engine.unwrap_or(Engine::Kernel), explainer)),
        (None, Err(KernelError::Load(LoadError::Privilege { .. }))) => {
            Ok((Engine::Host, with(Engine::Host)?.map_err(ExplainError::from)?))
        }
        (_, Err(error)) => Err(ExplainError::from(error).into()),
    }
}
