// Faces by the raw maps: scrfd export scrfd_500m_kps --layout maps --size 640x640 --batch 1 -o maps.onnx
// maps FILE.onnx PICTURE.ppm prints a line a face: x1 y1 x2 y2 score, then x y of each key point.
#include <cmath>
#include <cstdio>
#include <map>
#include <onnxruntime_cxx_api.h>
#include "picture.h"

struct Face { std::vector<float> at; float score; };  // at: x1 y1 x2 y2, then the key points, in pixels of the picture

// Best first; a face goes whose overlap with a better one is above `most`.
std::vector<Face> suppress(std::vector<Face> faces, float most) {
    std::stable_sort(faces.begin(), faces.end(), [](const Face& a, const Face& b) { return a.score > b.score; });
    auto area = [](const Face& f) { return (f.at[2] - f.at[0] + 1) * (f.at[3] - f.at[1] + 1); };
    std::vector<Face> kept;
    for (const Face& f : faces) {
        bool again = std::any_of(kept.begin(), kept.end(), [&](const Face& k) {
            float across = std::min(f.at[2], k.at[2]) - std::max(f.at[0], k.at[0]) + 1;
            float down = std::min(f.at[3], k.at[3]) - std::max(f.at[1], k.at[1]) + 1;
            float shared = std::max(0.f, across) * std::max(0.f, down);
            return shared / (area(f) + area(k) - shared) > most;
        });
        if (!again) kept.push_back(f);
    }
    return kept;
}

int main(int argc, char** argv) try {
    if (argc != 3) throw std::runtime_error("usage: maps FILE.onnx PICTURE.ppm");
    const int side = 640;
    float scale = 1;
    Picture canvas = letterbox(read_ppm(argv[2]), side, side, scale);
    std::vector<float> blob(canvas.rgb.size());  // planes: red, green, blue
    for (size_t i = 0; i < blob.size(); i++) blob[i % 3 * side * side + i / 3] = (canvas.rgb[i] - 127.5f) / 128.f;

    Ort::Env env;
    Ort::Session session(env, argv[1], Ort::SessionOptions{});
    Ort::AllocatorWithDefaultOptions memory;
    const int64_t shape[] = {1, 3, side, side};
    auto cpu = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    Ort::Value input = Ort::Value::CreateTensor<float>(cpu, blob.data(), blob.size(), shape, 4);
    std::vector<std::string> names;
    for (size_t i = 0; i < session.GetOutputCount(); i++)
        names.push_back(session.GetOutputNameAllocated(i, memory).get());
    std::vector<const char*> wanted;
    for (const std::string& name : names) wanted.push_back(name.c_str());
    const char* given = "input.1";
    auto values = session.Run(Ort::RunOptions{}, &given, &input, 1, wanted.data(), wanted.size());
    std::map<std::string, const Ort::Value*> maps;
    for (size_t i = 0; i < names.size(); i++) maps[names[i]] = &values[i];

    std::vector<Face> faces;
    for (int stride = 8; maps.count("score_" + std::to_string(stride)); stride *= 2) {
        auto data = [&](const char* kind) -> const float* {
            auto found = maps.find(kind + std::to_string(stride));
            return found == maps.end() ? nullptr : found->second->GetTensorData<float>();
        };
        const float *scores = data("score_"), *boxes = data("bbox_"), *points = data("kps_");
        auto sizes = maps["score_" + std::to_string(stride)]->GetTensorTypeAndShapeInfo().GetShape();
        int64_t cells = sizes[2] * sizes[3];
        for (int64_t anchor = 0; anchor < sizes[1]; anchor++) for (int64_t i = 0; i < cells; i++) {
            float score = 1 / (1 + std::exp(-scores[anchor * cells + i]));  // the maps have logits
            if (score < 0.5f) continue;
            Face face{{}, score};
            auto add = [&](int64_t axis, float strides) {  // from the cell's centre
                int64_t cell = axis == 0 ? i % sizes[3] : i / sizes[3];
                face.at.push_back(stride * (cell + strides) / scale);
            };
            for (int64_t k = 0; k < 4; k++)  // distances to the left, top, right and bottom
                add(k % 2, (k < 2 ? -1 : 1) * boxes[(anchor * 4 + k) * cells + i]);
            for (int64_t k = 0; points && k < 10; k++) add(k % 2, points[(anchor * 10 + k) * cells + i]);
            faces.push_back(face);
        }
    }
    for (const Face& face : suppress(faces, 0.4f)) {
        std::printf("%.2f %.2f %.2f %.2f %.4f", face.at[0], face.at[1], face.at[2], face.at[3], face.score);
        for (size_t k = 4; k < face.at.size(); k++) std::printf(" %.2f", face.at[k]);
        std::printf("\n");
    }
} catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
}
