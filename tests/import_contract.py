"""An import-linter contract: a package of `zoo` imports another through its `__init__` only."""

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class PackageDoorContract(Contract):
    """No import reaches past the `__init__` of another package."""

    root = fields.StringField()

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Find the imports of a module, not a package, that lies in a package other than the importer's own."""
        packages = {module for module in graph.modules if graph.find_children(module)}
        broken = [
            {"importer": importer, "imported": imported}
            for importer in sorted(graph.modules)
            for imported in sorted(graph.find_modules_directly_imported_by(importer))
            if imported.count(".") > 1
            and imported not in packages
            and self._package(importer) != self._package(imported)
        ]
        return ContractCheck(kept=not broken, metadata={"broken": broken})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print one line an import."""
        for found in check.metadata["broken"]:
            door = found["imported"].rpartition(".")[0]
            output.print_error(
                f"{found['importer']} imports {found['imported']}; expected an import from {door}.", bold=False
            )

    def _package(self, module: str) -> str:
        """Return the package of the first level that a module is in; `zoo.api` is its own."""
        return module.removeprefix(f"{self.root}.").partition(".")[0]
