//! Executes tunnelled requests in the agent, under the agent's own policy.
