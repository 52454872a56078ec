//! The comparison as a picture: bars for each row, one for each platform, on one scale.

use super::{
    Measured, Platform, Rows,
    rows::{Row, Unit},
    table::number,
};
use anyhow::anyhow;
use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

/// A row with a longer bar would press all others into nothing; the table has it.
pub(super) const SHOWN_MAX: f64 = 2500.0;

const WIDTH: i32 = 1000;
/// Where the bars begin: left of it stand the titles.
const LEFT: i32 = 400;
/// What the longest bar leaves for its number.
const RIGHT: i32 = 70;
const TOP: i32 = 34;
const BAR: i32 = 15;
const GAP: i32 = 12;
/// Below the last bar: the numbers of the scale.
const FOOT: i32 = 24;
const TEXT_SIZE: i32 = 14;
const FONT: &str = "sans-serif";

const INK: RGBColor = RGBColor(0x22, 0x26, 0x2b);
const FAINT: RGBColor = RGBColor(0xd7, 0xdb, 0xe0);

/// The colour of a platform's bars.
pub(super) const fn colour(platform: Platform) -> RGBColor {
    match platform {
        Platform::Native => RGBColor(0x9a, 0xa3, 0xad),
        Platform::Bulkhead => RGBColor(0x1f, 0x6f, 0xb2),
        Platform::Xen => RGBColor(0xd9, 0x8a, 0x2b),
    }
}

/// What stands beside each other: a row with a bar for each platform.
pub(super) struct Bars {
    /// What it is, for a reader.
    pub(super) title: String,
    /// The bars.
    pub(super) bars: Vec<(Platform, f64)>,
}

/// Draws the rows that count instructions, as SVG.
///
/// # Errors
/// When the picture cannot be drawn.
pub(super) fn draw(rows: &Rows, measured: &Measured) -> anyhow::Result<String> {
    let platforms: Vec<Platform> = Platform::ALL.into_iter().filter(|it| measured.of(*it).is_some()).collect();
    let bars = |row: &Row| -> Vec<(Platform, f64)> {
        platforms.iter().filter_map(|platform| Some((*platform, measured.average(*platform, &row.name)?))).collect()
    };
    let shown: Vec<Bars> = rows
        .all()
        .filter(|row| row.unit == Unit::Instructions)
        .map(|row| Bars { title: row.title.clone(), bars: bars(row) })
        .filter(|Bars { bars, .. }| !bars.is_empty() && bars.iter().all(|(_, value)| *value < SHOWN_MAX))
        .collect();
    let legend: Vec<_> = platforms.iter().map(|platform| (*platform, platform.to_string())).collect();
    draw_bars(&shown, &legend, "instructions")
}

/// Draws `shown`, as SVG: one scale for all, in `unit`.
///
/// # Errors
/// When the picture cannot be drawn.
pub(super) fn draw_bars(shown: &[Bars], legend: &[(Platform, String)], unit: &str) -> anyhow::Result<String> {
    let longest = shown.iter().flat_map(|row| &row.bars).map(|(_, value)| *value).fold(1.0, f64::max);
    let scale = f64::from(WIDTH - LEFT - RIGHT) / longest;
    let height = TOP + shown.iter().map(|row| row.bars.len() as i32 * BAR + GAP).sum::<i32>() + GAP + FOOT;

    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH as u32, height as u32)).into_drawing_area();
        let mut draw = Drawing { area: &area, scale };
        draw.legend(legend)?;
        draw.grid(longest, height, unit)?;
        let mut top = TOP + GAP;
        for row in shown {
            draw.row(top, row)?;
            top += row.bars.len() as i32 * BAR + GAP;
        }
        area.present().map_err(|error| anyhow!("the picture cannot be drawn: {error}"))?;
    }
    Ok(svg)
}

type Area<'a, 'b> = &'a DrawingArea<SVGBackend<'b>, plotters::coord::Shift>;

struct Drawing<'a, 'b> {
    area: Area<'a, 'b>,
    /// Pixels for one of what is counted.
    scale: f64,
}

impl Drawing<'_, '_> {
    fn legend(&mut self, platforms: &[(Platform, String)]) -> anyhow::Result<()> {
        let mut left = LEFT;
        for (platform, name) in platforms {
            self.bar(left, 10, 14, 12, colour(*platform))?;
            self.text(name, left + 20, 16, HPos::Left)?;
            left += 140;
        }
        Ok(())
    }

    /// A line every so often, with its number at the bottom.
    fn grid(&mut self, longest: f64, height: i32, unit: &str) -> anyhow::Result<()> {
        let step = [10, 20, 50, 100, 200, 250, 500, 1000, 2000]
            .into_iter()
            .find(|step| longest / f64::from(*step) <= 8.0)
            .unwrap_or(5000);
        let mut at = 0;
        while f64::from(at) <= longest {
            let x = LEFT + (f64::from(at) * self.scale) as i32;
            let line = PathElement::new(vec![(x, TOP), (x, height - FOOT)], FAINT);
            self.area.draw(&line).map_err(|error| anyhow!("{error}"))?;
            self.text(&number(Some(f64::from(at)), Unit::Bytes), x, height - FOOT / 2, HPos::Center)?;
            at += step;
        }
        self.text(unit, LEFT - 10, height - FOOT / 2, HPos::Right)
    }

    fn row(&mut self, top: i32, Bars { title, bars }: &Bars) -> anyhow::Result<()> {
        let middle = top + bars.len() as i32 * BAR / 2;
        self.text(title, LEFT - 10, middle, HPos::Right)?;
        for (index, (platform, value)) in (0..).zip(bars) {
            let y = top + index * BAR;
            let length = ((value * self.scale) as i32).max(1);
            self.bar(LEFT, y, length, BAR - 1, colour(*platform))?;
            self.text(&number(Some(*value), Unit::Instructions), LEFT + length + 5, y + BAR / 2, HPos::Left)?;
        }
        Ok(())
    }

    fn bar(&mut self, x: i32, y: i32, width: i32, height: i32, colour: RGBColor) -> anyhow::Result<()> {
        let bar = Rectangle::new([(x, y), (x + width, y + height)], colour.filled());
        self.area.draw(&bar).map_err(|error| anyhow!("{error}"))
    }

    fn text(&mut self, text: &str, x: i32, y: i32, side: HPos) -> anyhow::Result<()> {
        let style = (FONT, TEXT_SIZE).into_font().color(&INK).pos(Pos::new(side, VPos::Center));
        self.area.draw(&Text::new(text.to_owned(), (x, y), style)).map_err(|error| anyhow!("{error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Figure;

    #[test]
    fn every_platform_has_a_bar_with_its_number() {
        let rows =
            Rows::parse("[[row]]\nname = \"hvc\"\ntitle = \"HVC\"\n[[row]]\nname = \"boot\"\ntitle = \"Start\"\n");
        let mut measured = Measured::default();
        for (platform, cost) in [(Platform::Native, 4), (Platform::Bulkhead, 50), (Platform::Xen, 474)] {
            measured.of_mut(platform).insert("hvc", Figure::once(cost));
        }
        measured.of_mut(Platform::Bulkhead).insert("boot", Figure::once(300_000));
        let svg = draw(&rows, &measured).expect("a picture");
        for text in ["HVC", "4.0", "50.0", "474", "Bulkhead", "Xen"] {
            assert!(svg.contains(text), "{text} is missing");
        }
        assert!(!svg.contains("Start"), "a row off the scale is shown");
    }
}
