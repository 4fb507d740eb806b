"""How the page looks and what it loads: theme, style sheet, fonts and Plotly, all from this machine. Nothing comes from the network.

Example::

    page.launch(**look())
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from playground.core.places import ASSETS
from playground.results.drawing import plotly_path

_NEUTRAL = gr.themes.Color(
    name="stone", c50="#fafaf8", c100="#f4f4f1", c200="#e7e6e1", c300="#d3d2cb", c400="#a3a29b", c500="#75746d",
    c600="#56554f", c700="#3d3c38", c800="#262624", c900="#1a1a19", c950="#121211",
)  # fmt: skip
_BLUE = gr.themes.Color(
    name="ink", c50="#eef4f9", c100="#d9e7f2", c200="#b5d0e5", c300="#86b2d3", c400="#4f8fbd", c500="#2272a8",
    c600="#17608f", c700="#124b71", c800="#0f3d5c", c900="#0b2c43", c950="#071d2c",
)  # fmt: skip
_SETTINGS = {
    "body_background_fill": "*neutral_100",
    "body_background_fill_dark": "*neutral_950",
    "body_text_color": "*neutral_900",
    "body_text_color_dark": "*neutral_100",
    "body_text_color_subdued": "*neutral_600",
    "body_text_color_subdued_dark": "*neutral_400",
    "block_background_fill": "transparent",
    "block_background_fill_dark": "transparent",
    "block_border_width": "0px",
    "block_shadow": "none",
    "block_padding": "0px",
    "block_title_text_weight": "600",
    "block_title_text_size": "*text_sm",
    "block_title_text_color": "*neutral_800",
    "block_title_text_color_dark": "*neutral_200",
    "block_label_background_fill": "transparent",
    "block_info_text_size": "12.5px",
    "block_info_text_color": "*neutral_600",
    "block_info_text_color_dark": "*neutral_400",
    "input_background_fill": "white",
    "input_background_fill_dark": "*neutral_900",
    "input_border_width": "1px",
    "checkbox_label_border_width": "1px",
    "input_border_color": "*neutral_300",
    "input_border_color_dark": "*neutral_700",
    "input_border_color_focus": "*primary_500",
    "input_border_color_focus_dark": "*primary_400",
    "input_shadow_focus": "0 0 0 3px rgba(34, 114, 168, .25)",
    "checkbox_label_background_fill": "white",
    "checkbox_label_background_fill_dark": "*neutral_900",
    "checkbox_label_background_fill_selected": "*primary_50",
    "checkbox_label_background_fill_selected_dark": "*primary_900",
    "checkbox_label_border_color": "*neutral_300",
    "checkbox_label_border_color_dark": "*neutral_700",
    "checkbox_label_border_color_selected": "*primary_500",
    "checkbox_label_border_color_selected_dark": "*primary_400",
    "checkbox_label_padding": "5px 11px",
    "checkbox_label_gap": "6px",
    "checkbox_label_text_size": "*text_sm",
    "checkbox_label_shadow": "none",
    "button_primary_background_fill": "*primary_600",
    "button_primary_background_fill_hover": "*primary_700",
    "button_primary_background_fill_dark": "*primary_400",
    "button_primary_background_fill_hover_dark": "*primary_300",
    "button_primary_text_color": "white",
    "button_primary_text_color_dark": "*neutral_950",
    "button_secondary_background_fill": "white",
    "button_secondary_background_fill_hover": "*neutral_100",
    "button_secondary_background_fill_dark": "*neutral_800",
    "button_secondary_background_fill_hover_dark": "*neutral_700",
    "button_secondary_border_color": "*neutral_300",
    "button_secondary_border_color_dark": "*neutral_600",
    "button_border_width": "1px",
    "panel_background_fill": "transparent",
    "panel_border_width": "0px",
}


def theme() -> gr.themes.Base:
    """Quiet neutrals, one blue, IBM Plex from Gradio's own font files."""
    base = gr.themes.Base(
        primary_hue=_BLUE,
        secondary_hue=_BLUE,
        neutral_hue=_NEUTRAL,
        radius_size=gr.themes.sizes.radius_sm,
        spacing_size=gr.themes.sizes.spacing_md,
        text_size=gr.themes.sizes.text_md,
        font=(gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)), "ui-sans-serif", "system-ui", "sans-serif"),
        font_mono=(gr.themes.LocalFont("IBM Plex Mono", weights=(400, 700)), "ui-monospace", "Consolas", "monospace"),
    )
    return base.set(**_SETTINGS)


def chart_head() -> str:
    """The script tag that a chart component needs before its own script runs."""
    return f'<script src="gradio_api/file={plotly_path().as_posix()}" async></script>'


def chart(elem_id: str, title: str) -> gr.HTML:
    """A chart component that draws the JSON of its value in place (see assets/live_charts.js) and is hidden while there is none."""
    return gr.HTML(
        value="",
        html_template=f'<section class="chart-section" aria-label="{title}" hidden><h2>{title}</h2><div class="charts"></div></section>',
        js_on_load=(ASSETS / "live_charts.js").read_text(encoding="utf-8"),
        head=chart_head(),
        apply_default_css=False,
        elem_id=elem_id,
        elem_classes="chart-block",
        label=title,
    )


def look() -> dict[str, Any]:
    """What `launch` needs to show the page as it is meant; also lets Gradio serve plotly.min.js."""
    gr.set_static_paths([plotly_path()])
    return {"theme": theme(), "css_paths": ASSETS / "style.css", "run_history": False, "footer_links": ["api", "settings"]}
