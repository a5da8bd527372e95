//! The HTML page: the view and the figures in a template.

use minijinja::{
    AutoEscape, Environment, context,
    syntax::SyntaxConfig,
    value::{Serde, Value},
};

use crate::{
    ReportError,
    figures::Figures,
    palette::{name_of, operation_style},
    view::View,
};

/// Fills the template. Everything from the record is escaped; only what this crate drew is not.
pub(crate) fn render(view: &View, figures: &Figures) -> Result<String, ReportError> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.add_filter("colour", |name: String| name_of(operation_style(&name).colour));
    environment.add_template("report", include_str!("template.html"))?;
    let page = environment.get_template("report")?.render(context! {
        style => Value::from_safe_string(include_str!("style.css").to_owned()),
        v => Value::from(Serde(view)),
        f => Value::from(Serde(figures)),
        lathe => env!("CARGO_PKG_VERSION"),
    })?;
    Ok(page)
}
