"""Materials: what they are made of and how dense they are.

Hydrogen is left out: it gives no X-rays, so compositions here compare with measured ones as they
are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edxdenoise.xray.lines import atomic_weight


@dataclass(frozen=True)
class Material:
    """A homogeneous material.

    Parameters
    ----------
    atoms : mapping of str to float
        Atoms per formula unit, hydrogen left out.
    density : float
        In g/cm^3.
    """

    atoms: Mapping[str, float]
    density: float

    def atomic_fractions(self) -> dict[str, float]:
        """Share of the atoms per element.

        Examples
        --------
        >>> Material({"Pb": 1, "I": 3}, 6.2).atomic_fractions()
        {'Pb': 0.25, 'I': 0.75}
        """
        total = sum(self.atoms.values())
        return {element: number / total for element, number in self.atoms.items()}

    def weight_fractions(self) -> dict[str, float]:
        """Share of the mass per element."""
        mass = {element: n * atomic_weight(element) for element, n in self.atoms.items()}
        total = sum(mass.values())
        return {element: value / total for element, value in mass.items()}


MATERIALS: dict[str, Material] = {
    # Perovskite solar cell. The control film has lost some methylammonium iodide in its annealing.
    "MAPbI3 control": Material({"Pb": 1.0, "I": 2.93, "C": 0.92, "N": 0.89}, 4.1),
    "MAPbI3 treated": Material({"Pb": 1.0, "I": 3.0, "C": 1.08, "N": 1.06}, 4.1),
    "MAPbI3 N-poor": Material({"Pb": 1.0, "I": 2.85, "C": 0.60, "N": 0.30}, 4.2),
    "MAPbI3 damaged": Material({"Pb": 1.0, "I": 1.6, "C": 4.0, "N": 0.2}, 2.8),
    "PbI2": Material({"Pb": 1.0, "I": 2.0}, 6.16),
    "PCBM": Material({"C": 72.0, "O": 2.0}, 1.5),
    "ITO": Material({"In": 1.82, "Sn": 0.18, "O": 3.0}, 7.1),
    "Cu": Material({"Cu": 1.0}, 8.96),
    "glass": Material({"Si": 0.72, "Na": 0.26, "Ca": 0.10, "Mg": 0.08, "O": 1.76}, 2.5),
    "Pt cap": Material({"Pt": 0.40, "C": 0.52, "Ga": 0.08}, 9.0),
    # Supported metal particles.
    "carbon film": Material({"C": 1.0}, 2.0),
    "Au": Material({"Au": 1.0}, 19.3),
    "AuAg": Material({"Au": 0.5, "Ag": 0.5}, 15.0),
    "Ag": Material({"Ag": 1.0}, 10.5),
    "Pd": Material({"Pd": 1.0}, 12.0),
    "CeO2": Material({"Ce": 1.0, "O": 2.0}, 7.2),
    # Core-shell particles.
    "FePt": Material({"Fe": 1.0, "Pt": 1.0}, 15.0),
    "Fe3O4": Material({"Fe": 3.0, "O": 4.0}, 5.2),
    # Semiconductor layers.
    "Si": Material({"Si": 1.0}, 2.33),
    "SiGe": Material({"Si": 0.6, "Ge": 0.4}, 3.9),
    "Si doped with As": Material({"Si": 0.96, "As": 0.04}, 2.45),
    "SiO2": Material({"Si": 1.0, "O": 2.0}, 2.2),
    "HfO2": Material({"Hf": 1.0, "O": 2.0}, 9.7),
    "TiN": Material({"Ti": 1.0, "N": 1.0}, 5.2),
    "W": Material({"W": 1.0}, 19.3),
    # A dacite: idealised minerals, feldspar between its end members.
    "quartz": Material({"Si": 1.0, "O": 2.0}, 2.65),
    "albite": Material({"Na": 1.0, "Al": 1.0, "Si": 3.0, "O": 8.0}, 2.62),
    "anorthite": Material({"Ca": 1.0, "Al": 2.0, "Si": 2.0, "O": 8.0}, 2.73),
    "sanidine": Material({"K": 0.8, "Na": 0.2, "Al": 1.0, "Si": 3.0, "O": 8.0}, 2.56),
    "hornblende": Material(
        {"Ca": 1.8, "Na": 0.4, "Mg": 3.2, "Fe": 1.5, "Al": 1.7, "Ti": 0.2, "Si": 6.6, "O": 24.0},
        3.2,
    ),
    "magnetite": Material({"Fe": 2.7, "Ti": 0.25, "Al": 0.05, "O": 4.0}, 5.1),
    "ilmenite": Material({"Fe": 0.9, "Ti": 1.0, "Mn": 0.1, "O": 3.0}, 4.7),
    "apatite": Material({"Ca": 5.0, "P": 3.0, "O": 12.0, "F": 0.7, "Cl": 0.3}, 3.2),
    "zircon": Material({"Zr": 1.0, "Si": 1.0, "O": 4.0}, 4.65),
    "glass (dacite)": Material(
        {"Si": 6.3, "Al": 1.25, "Na": 0.55, "K": 0.45, "Ca": 0.15, "Fe": 0.1, "O": 16.0}, 2.4
    ),
}
