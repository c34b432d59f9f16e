// Lets one Vulkan driver report another's limits to a program that it is preloaded into: lavapipe as a discrete GPU, so
// that llama.cpp decides as it would there. SHIM_RANGE is maxStorageBufferRange, SHIM_ALIGN minStorageBufferOffsetAlignment,
// SHIM_MAP_ALIGN minMemoryMapAlignment, SHIM_HEAP the size of the first heap; what is not set stays as it is.
// SHIM_PIPELINES names a file that gets a line for each compute pipeline: bytes of its shader, and KiB by which the
// process' anonymous memory grew meanwhile.
//
//     gcc -shared -fPIC -o shim.so vulkan_shim.c -ldl
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vulkan/vulkan.h>

static PFN_vkGetInstanceProcAddr loader;
static PFN_vkGetPhysicalDeviceProperties properties;
static PFN_vkGetPhysicalDeviceProperties2 properties2;
static PFN_vkGetPhysicalDeviceMemoryProperties memory;
static PFN_vkGetPhysicalDeviceMemoryProperties2 memory2;
static PFN_vkGetDeviceProcAddr of_device;
static PFN_vkCreateShaderModule shader;
static PFN_vkCreateComputePipelines pipelines;
static size_t shader_bytes; // of the last one: llama.cpp makes a pipeline of each at once

static unsigned long long set(const char *name, unsigned long long value) {
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 0) : value;
}

static void limit(VkPhysicalDeviceLimits *limits) {
    limits->maxStorageBufferRange = set("SHIM_RANGE", limits->maxStorageBufferRange);
    limits->minStorageBufferOffsetAlignment = set("SHIM_ALIGN", limits->minStorageBufferOffsetAlignment);
    limits->minMemoryMapAlignment = set("SHIM_MAP_ALIGN", limits->minMemoryMapAlignment);
}

static void our_properties(VkPhysicalDevice device, VkPhysicalDeviceProperties *found) {
    properties(device, found);
    limit(&found->limits);
}

static void our_properties2(VkPhysicalDevice device, VkPhysicalDeviceProperties2 *found) {
    properties2(device, found);
    limit(&found->properties.limits);
}

static void our_memory(VkPhysicalDevice device, VkPhysicalDeviceMemoryProperties *found) {
    memory(device, found);
    found->memoryHeaps[0].size = set("SHIM_HEAP", found->memoryHeaps[0].size);
}

static void our_memory2(VkPhysicalDevice device, VkPhysicalDeviceMemoryProperties2 *found) {
    memory2(device, found);
    found->memoryProperties.memoryHeaps[0].size = set("SHIM_HEAP", found->memoryProperties.memoryHeaps[0].size);
}

static long anonymous_kib(void) {
    long pages = 0, resident = 0, shared = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file) {
        if (fscanf(file, "%ld %ld %ld", &pages, &resident, &shared) != 3) resident = shared = 0;
        fclose(file);
    }
    return (resident - shared) * 4;
}

static VkResult our_shader(VkDevice device, const VkShaderModuleCreateInfo *info, const VkAllocationCallbacks *with,
                           VkShaderModule *made) {
    shader_bytes = info->codeSize;
    return shader(device, info, with, made);
}

static VkResult our_pipelines(VkDevice device, VkPipelineCache cache, uint32_t n, const VkComputePipelineCreateInfo *info,
                              const VkAllocationCallbacks *with, VkPipeline *made) {
    long before = anonymous_kib();
    VkResult result = pipelines(device, cache, n, info, with, made);
    FILE *file = fopen(getenv("SHIM_PIPELINES"), "a");
    if (file) {
        fprintf(file, "%zu %ld\n", shader_bytes, anonymous_kib() - before);
        fclose(file);
    }
    return result;
}

#define REPLACE(vulkan, theirs, ours)            \
    if (!strcmp(name, vulkan)) {                 \
        theirs = (void *)found;                  \
        return (PFN_vkVoidFunction)ours;         \
    }

static PFN_vkVoidFunction counted(const char *name, PFN_vkVoidFunction found) {
    if (!getenv("SHIM_PIPELINES")) return found;
    REPLACE("vkCreateShaderModule", shader, our_shader)
    REPLACE("vkCreateComputePipelines", pipelines, our_pipelines)
    return found;
}

VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL vkGetDeviceProcAddr(VkDevice device, const char *name) {
    if (!of_device) of_device = (PFN_vkGetDeviceProcAddr)dlsym(RTLD_NEXT, "vkGetDeviceProcAddr");
    if (!of_device) of_device = (PFN_vkGetDeviceProcAddr)dlsym(dlopen("libvulkan.so.1", RTLD_NOW), "vkGetDeviceProcAddr");
    PFN_vkVoidFunction found = of_device(device, name);
    return found ? counted(name, found) : found;
}

VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL vkGetInstanceProcAddr(VkInstance instance, const char *name) {
    if (!loader) loader = (PFN_vkGetInstanceProcAddr)dlsym(RTLD_NEXT, "vkGetInstanceProcAddr");
    if (!loader) loader = (PFN_vkGetInstanceProcAddr)dlsym(dlopen("libvulkan.so.1", RTLD_NOW), "vkGetInstanceProcAddr");
    PFN_vkVoidFunction found = loader(instance, name);
    if (!found) return found;
    REPLACE("vkGetDeviceProcAddr", of_device, vkGetDeviceProcAddr)
    REPLACE("vkGetPhysicalDeviceProperties", properties, our_properties)
    REPLACE("vkGetPhysicalDeviceProperties2", properties2, our_properties2)
    REPLACE("vkGetPhysicalDeviceProperties2KHR", properties2, our_properties2)
    REPLACE("vkGetPhysicalDeviceMemoryProperties", memory, our_memory)
    REPLACE("vkGetPhysicalDeviceMemoryProperties2", memory2, our_memory2)
    REPLACE("vkGetPhysicalDeviceMemoryProperties2KHR", memory2, our_memory2)
    return counted(name, found);
}
