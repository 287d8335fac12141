//! The model speaks the code's language.

#[path = "../model/step_names.rs"]
mod model;

use token_broker::domain::step::Step;

#[test]
fn the_model_has_the_steps_of_the_code() {
    assert_eq!(model::STEP_NAMES, Step::ALL.map(Step::name));
}
