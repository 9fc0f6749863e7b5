//! The example flows of `flows/`, in the binary, so that `tidegate demo` needs nothing else.

/// Name and text of each file in `flows/`, by name.
pub const FLOWS: &[(&str, &str)] = &[
    ("air-quality", include_str!("../flows/air-quality.toml")),
    ("climate", include_str!("../flows/climate.toml")),
    ("cold-store", include_str!("../flows/cold-store.toml")),
    ("door", include_str!("../flows/door.toml")),
    ("energy-meter", include_str!("../flows/energy-meter.toml")),
    ("greenhouse", include_str!("../flows/greenhouse.toml")),
    (
        "machine-vibration",
        include_str!("../flows/machine-vibration.toml"),
    ),
    ("pump-station", include_str!("../flows/pump-station.toml")),
    ("tank-level", include_str!("../flows/tank-level.toml")),
    ("water-meter", include_str!("../flows/water-meter.toml")),
    (
        "weather-station",
        include_str!("../flows/weather-station.toml"),
    ),
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::flow::{Site, Variables, directory};

    #[test]
    fn every_file_in_flows_is_here_and_without_fault() {
        let files = directory::find(&Path::new(env!("CARGO_MANIFEST_DIR")).join("flows"))
            .expect("it can be read");
        let names: Vec<String> = files
            .iter()
            .map(|file| directory::flow_name(file))
            .collect();
        assert_eq!(
            names,
            FLOWS.iter().map(|(name, _)| *name).collect::<Vec<_>>()
        );
        let site = Site::from_texts(FLOWS.iter().copied(), |_| Variables::default());
        let found: String = site
            .diagnostics
            .iter()
            .map(|diagnostic| diagnostic.render(false))
            .collect();
        assert_eq!(found, "");
    }
}
