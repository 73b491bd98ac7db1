//! What the admin socket answers to the orders to withdraw this balancer, and to announce it again.

use super::{
    fault::Fault,
    routes::{Answer, Call, Context, Parameter, Reply, Route, type_of},
};
use crate::bus::HandedOver;
use hyper::Method;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What has become of this balancer.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
pub struct Withdrawal {
    /// Whether `/healthz` answers 503 for that reason.
    pub is_withdrawn: bool,
    /// The balancers that have all that this one knows, by their names on the bus.
    pub members: Vec<String>,
    /// Tokens that they were told.
    pub tokens: usize,
    /// Joined flows that they were told.
    pub joined_flows: usize,
    /// Why the others know nothing, or not all of it.
    pub not_handed_over: Option<String>,
}

/// Hands over and withdraws.
pub(super) const DRAIN: Route = Route {
    method: Method::POST,
    path: "/v1/self/drain",
    about: "Hand over to the other balancers all that this one knows; then have `/healthz` answer 503, so that its VIPs are \
            no longer announced. Packets that still come are steered.",
    query: &[Parameter {
        name: "force",
        kind: "boolean",
        about: "Withdraw even if the others do not have all of it: subflows that joined here may break.",
    }],
    body: None,
    answer: type_of::<Withdrawal>,
    handler: drain,
};

/// Takes that back.
pub(super) const ENABLE: Route = Route {
    method: Method::POST,
    path: "/v1/self/enable",
    about: "Take the order to withdraw back: `/healthz` answers 200 again.",
    query: &[],
    body: None,
    answer: type_of::<Withdrawal>,
    handler: |context, _| {
        context.withdraw(false);
        Box::pin(async { reply(&Withdrawal::default()) })
    },
};

impl Context {
    /// Withdraws, or no longer; when the answer comes, `/healthz` says so.
    fn withdraw(&self, is_withdrawn: bool) {
        self.service.withdraw(is_withdrawn);
        self.fitness.note(&self.service);
    }
}

fn drain(context: Context, call: Call) -> Answer {
    Box::pin(async move {
        let force = call.parameter("force")?.unwrap_or(false);
        let handed_over = match context.service.handover() {
            Some(handover) => handover.hand_over().await.map_err(|error| error.to_string()),
            None => Err("there is no [bus] in the configuration".to_owned()),
        };
        let withdrawal = match handed_over {
            Ok(HandedOver { members, tokens, flows }) => {
                Withdrawal { is_withdrawn: true, members, tokens, joined_flows: flows, not_handed_over: None }
            }
            Err(why) if force => Withdrawal { is_withdrawn: true, not_handed_over: Some(why), ..Withdrawal::default() },
            Err(why) => {
                return Err(Fault::conflict(format!(
                    "not withdrawn, for the others do not know what this balancer knows: {why}; mend that, or withdraw with \
                     --force, which may break subflows that joined here"
                )));
            }
        };
        context.withdraw(true);
        reply(&withdrawal)
    })
}

fn reply(withdrawal: &Withdrawal) -> Result<Reply, Fault> {
    Ok(Reply::Document(serde_json::to_vec(withdrawal)?))
}
