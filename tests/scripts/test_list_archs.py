"""The script that reads architectures out of llama.cpp's source, on a small tree."""

import sys
from pathlib import Path

import pytest

from scripts import list_archs

NAMES = """
static const std::map<llm_arch, const char *> LLM_ARCH_NAMES = {
    { LLM_ARCH_LLAMA,  "llama"  }, // a comment
    { LLM_ARCH_GEMMA2, "gemma2" },
    { LLM_ARCH_GEMMA9, "gemma9" },
    { LLM_ARCH_BERT,   "bert"   },
    { LLM_ARCH_MAMBA,  "mamba"  },
    { LLM_ARCH_JAMBA,  "jamba"  },
    { LLM_ARCH_MSA,    "minimax-m3" },
    { LLM_ARCH_GPTJ,   "gptj"   },
};

bool llm_arch_is_recurrent(const llm_arch & arch) {
    switch (arch) {
        case LLM_ARCH_MAMBA:
            return true;
        default:
            return false;
    }
}

bool llm_arch_is_hybrid(const llm_arch & arch) {
    switch (arch) {
        case LLM_ARCH_JAMBA:
            return true;
        default:
            return false;
    }
}
"""
MODEL = """
static llama_model * llama_model_mapping(llm_arch arch, const llama_model_params & params) {
    switch (arch) {
        case LLM_ARCH_LLAMA:
            return new llama_model_llama(params);
        case LLM_ARCH_GEMMA2:
            return new llama_model_gemma2(params);
        case LLM_ARCH_GEMMA9:
            return new llama_model_gemma9(params);
        case LLM_ARCH_BERT:
            return new llama_model_bert(params);
        case LLM_ARCH_MAMBA:
            return new llama_model_mamba(params);
        case LLM_ARCH_JAMBA:
            return new llama_model_jamba(params);
        case LLM_ARCH_MSA:
            return new llama_model_msa(params);
        default:
            throw std::runtime_error("unsupported");
    }
}

llama_memory_i * llama_model::create_memory(const llama_memory_params & params) const {
    switch (arch) {
        case LLM_ARCH_BERT:
            {
                res = nullptr;
            } break;
        case LLM_ARCH_MSA:
            {
                if (mtp) {
                    res = new llama_kv_cache(*this);
                } else {
                    res = new llama_kv_cache_msa(*this);
                }
            } break;
        default:
            {
                res = new llama_memory_hybrid(*this);
            }
    }
}
"""
LOADERS = """
void llama_model_llama::load_arch_hparams(llama_model_loader & ml) {
    hparams.swa_type = LLAMA_SWA_TYPE_NONE; // hparams.swa_type = LLAMA_SWA_TYPE_STANDARD
}

void llama_model_gemma2::load_arch_hparams(llama_model_loader & ml) {
    hparams.swa_type = LLAMA_SWA_TYPE_STANDARD;
}
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source tree of seven architectures."""
    models = tmp_path / "src" / "models"
    models.mkdir(parents=True)
    (tmp_path / "src" / "llama-arch.cpp").write_text(NAMES)
    (tmp_path / "src" / "llama-model.cpp").write_text(MODEL)
    (models / "all.cpp").write_text(LOADERS)
    (models / "models.h").write_text("struct llama_model_gemma9 : public llama_model_gemma2 {\n};\n")
    return tmp_path


def test_read_tree(tree: Path) -> None:
    """Names, classes and memory come out of the source; names without a class do not."""
    found = {arch.name: (arch.model_class, arch.memory) for arch in list_archs.read_tree(tree).values()}

    assert found == {
        "llama": ("llama_model_llama", "attention"),
        "gemma2": ("llama_model_gemma2", "attention with windows"),
        "gemma9": ("llama_model_gemma9", "attention with windows"),
        "bert": ("llama_model_bert", "none"),
        "mamba": ("llama_model_mamba", "recurrent"),
        "jamba": ("llama_model_jamba", "hybrid"),
        "minimax-m3": ("llama_model_msa", "sparse"),
    }


def test_differences(tree: Path) -> None:
    """Rows that are missing, left over or of another kind are named; what cannot run alone has no kind to compare."""
    table = {
        "llama": "attention with windows",
        "gemma2": "attention with windows",
        "bert": "none",
        "mamba": "recurrent",
        "jamba": "",
        "minimax-m3": "sparse",
        "gptj": "attention",
    }

    assert list(list_archs.differences(list_archs.read_tree(tree), table)) == [
        "gemma9: llama_model_gemma9, memory attention with windows, has no row in the table",
        "gptj: has a row, but llama.cpp has no model class for it",
        "llama: llama.cpp's memory is attention, the table's attention with windows",
    ]


def test_exit_codes(tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """1 when there are differences, 2 when the tree is no source of llama.cpp."""
    monkeypatch.setattr(sys, "argv", ["list_archs", str(tree), "--list"])
    code = list_archs.main()
    out = capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["list_archs", str(tree / "nothing")])

    assert code == 1
    assert "gemma9: llama_model_gemma9" in out
    assert "llama              llama_model_llama                attention" in out
    assert "llama: its source, src/models/llama.cpp, is gone" not in out
    assert "gemma3: its source, src/models/gemma3.cpp, is gone" in out
    assert list_archs.main() == 2
    assert "cannot be read as llama.cpp's source" in capsys.readouterr().err


def test_source_that_moved(tree: Path) -> None:
    """A function that is not where it was is named, instead of an empty list."""
    (tree / "src" / "llama-model.cpp").write_text("")
    with pytest.raises(ValueError, match="no definition of llama_model_mapping"):
        list_archs.read_tree(tree)


def test_table_has_a_kind_for_all_that_run() -> None:
    """Every row that llama.cpp can create a context for has a kind of memory."""
    kinds = list_archs.read_table()

    assert [name for name, kind in kinds.items() if not kind] == ["gemma4-assistant", "clip"]
    assert (kinds["llama"], kinds["gemma3"], kinds["bert"]) == ("attention", "attention with windows", "none")
    assert (kinds["mamba"], kinds["lfm2"], kinds["deepseek4"]) == ("recurrent", "hybrid with windows", "sparse")
