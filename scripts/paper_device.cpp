// A device that exists on paper: it takes every operation and allocates nothing, but puts a graph in order by a real
// backend's own code, which build_paper.py compiles beside this. PAPER_NAME is what its devices are called, PAPER_ALIGNMENT
// and PAPER_ROW what tensors and rows of quantised ones are padded to; with PAPER_PRODUCTS_ONLY it fetches weights for
// matrix products alone.
#include "ggml-backend-impl.h"
#include "ggml-impl.h"

#include <sys/mman.h>

#include <cstring>

void paper_graph_optimize(ggml_backend_t backend, ggml_cgraph * graph, ggml_backend_graph_optimize_params * params);

static const size_t BYTES = size_t(24) << 30;

// Memory that nobody writes to but where weights are loaded.
static ggml_backend_buffer_t alloc_buffer(ggml_backend_buffer_type_t type, size_t size) {
    const size_t nbytes = size + 4096;
    void * base = mmap(nullptr, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) {
        return nullptr;
    }
    ggml_backend_buffer_i functions = {};
    functions.free_buffer = [](ggml_backend_buffer_t buffer) { munmap(buffer->context, buffer->size + 4096); };
    functions.get_base = [](ggml_backend_buffer_t buffer) { return buffer->context; };
    functions.set_tensor = [](ggml_backend_buffer_t, ggml_tensor * tensor, const void * data, size_t offset, size_t n) {
        memcpy((char *) tensor->data + offset, data, n);
    };
    functions.clear = [](ggml_backend_buffer_t, uint8_t) {};  // it is 0 already
    return ggml_backend_buffer_init(type, functions, base, size);
}

static size_t alloc_size(ggml_backend_buffer_type_t, const ggml_tensor * tensor) {
    const int64_t over = PAPER_ROW ? tensor->ne[0] % PAPER_ROW : 0;
    const bool padded = over && ggml_is_quantized(tensor->type);
    return ggml_nbytes(tensor) + (padded ? ggml_row_size(tensor->type, PAPER_ROW - over) : 0);
}

static ggml_backend_buffer_type buffer_type = {
    {
        [](ggml_backend_buffer_type_t type) { return (const char *) type->context; },
        alloc_buffer,
        [](ggml_backend_buffer_type_t) { return size_t(PAPER_ALIGNMENT); },
        nullptr, alloc_size, nullptr,
    },
    nullptr, (void *) PAPER_NAME "0",
};

static ggml_guid guid = {0x70, 0x61, 0x70, 0x65, 0x72};

static ggml_backend_t init_backend(ggml_backend_dev_t device, const char *) {
    ggml_backend_i functions = {};
    functions.get_name = [](ggml_backend_t) { return PAPER_NAME "0"; };
    functions.free = [](ggml_backend_t backend) { delete backend; };
    functions.synchronize = [](ggml_backend_t) {};
    functions.graph_compute = [](ggml_backend_t, ggml_cgraph *) { return GGML_STATUS_FAILED; };
    functions.graph_optimize = paper_graph_optimize;
    return new ggml_backend{&guid, functions, device, nullptr};
}

static void props(ggml_backend_dev_t device, ggml_backend_dev_props * found) {
    *found = {};
    found->name = device->iface.get_name(device);
    found->description = "on paper";
    found->type = GGML_BACKEND_DEVICE_TYPE_GPU;
    device->iface.get_memory(device, &found->memory_free, &found->memory_total);
}

// Whether there are at least as many rows as it is worth fetching weights for.
static bool offload_op(ggml_backend_dev_t, const ggml_tensor * node) {
    switch (node->op) {
        case GGML_OP_GET_ROWS: return false;
        case GGML_OP_MUL_MAT: return node->ne[1] >= 32;
        case GGML_OP_MUL_MAT_ID: return node->ne[2] >= 32;
        case GGML_OP_ROPE:
        case GGML_OP_ROPE_BACK: return !PAPER_PRODUCTS_ONLY && node->ne[2] >= 32;
        default: return !PAPER_PRODUCTS_ONLY && ggml_nrows(node) >= 32;
    }
}

static ggml_backend_device make_device(ggml_backend_reg_t reg) {
    ggml_backend_device device = {};
    device.reg = reg;
    device.iface.get_name = [](ggml_backend_dev_t) { return PAPER_NAME "0"; };
    device.iface.get_description = [](ggml_backend_dev_t) { return "on paper"; };
    device.iface.get_memory = [](ggml_backend_dev_t, size_t * free, size_t * total) { *free = *total = BYTES; };
    device.iface.get_type = [](ggml_backend_dev_t) { return GGML_BACKEND_DEVICE_TYPE_GPU; };
    device.iface.get_props = props;
    device.iface.init_backend = init_backend;
    device.iface.get_buffer_type = [](ggml_backend_dev_t) { return &buffer_type; };
    device.iface.supports_op = [](ggml_backend_dev_t, const ggml_tensor *) { return true; };
    device.iface.supports_buft = [](ggml_backend_dev_t, ggml_backend_buffer_type_t type) { return type == &buffer_type; };
    device.iface.offload_op = offload_op;
    return device;
}

static ggml_backend_reg_t paper_reg() {
    static ggml_backend_reg reg = {
        GGML_BACKEND_API_VERSION,
        {
            [](ggml_backend_reg_t) { return PAPER_NAME; },
            [](ggml_backend_reg_t) { return size_t(1); },
            [](ggml_backend_reg_t, size_t) { return buffer_type.device; },
            [](ggml_backend_reg_t, const char *) -> void * { return nullptr; },
        },
        nullptr,
    };
    static ggml_backend_device device = make_device(&reg);
    buffer_type.device = &device;
    return &reg;
}

GGML_BACKEND_DL_IMPL(paper_reg)
