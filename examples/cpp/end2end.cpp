// Faces by a file that decodes them itself: scrfd export scrfd_500m_kps --layout end2end --batch 1 -o faces.onnx
// end2end FILE.onnx PICTURE.ppm prints a line a face: x1 y1 x2 y2 score, then x y of each key point.
#include <cstdio>
#include <onnxruntime_cxx_api.h>
#include "picture.h"

int main(int argc, char** argv) try {
    if (argc != 3) throw std::runtime_error("usage: end2end FILE.onnx PICTURE.ppm");
    const int side = 640;
    float scale = 1;
    Picture canvas = letterbox(read_ppm(argv[2]), side, side, scale);
    for (size_t i = 0; i < canvas.rgb.size(); i += 3) std::swap(canvas.rgb[i], canvas.rgb[i + 2]);  // it takes BGR

    Ort::Env env;
    Ort::Session session(env, argv[1], Ort::SessionOptions{});
    const int64_t shape[] = {1, side, side, 3};
    auto cpu = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    Ort::Value input = Ort::Value::CreateTensor<uint8_t>(cpu, canvas.rgb.data(), canvas.rgb.size(), shape, 4);
    const char *given = "images", *wanted[] = {"counts", "scores", "boxes", "keypoints"};
    size_t outputs = std::min<size_t>(session.GetOutputCount(), 4);  // 3 without key points
    auto values = session.Run(Ort::RunOptions{}, &given, &input, 1, wanted, outputs);

    const int64_t count = *values[0].GetTensorData<int64_t>();
    const float *scores = values[1].GetTensorData<float>(), *boxes = values[2].GetTensorData<float>();
    const float* points = outputs > 3 ? values[3].GetTensorData<float>() : nullptr;  // (1, rows, 5, 2)
    for (int64_t i = 0; i < count; i++) {
        for (int k = 0; k < 4; k++) std::printf("%.2f ", boxes[4 * i + k] / scale);
        std::printf("%.4f", scores[i]);
        for (int k = 0; points && k < 10; k++) std::printf(" %.2f", points[10 * i + k] / scale);
        std::printf("\n");
    }
} catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
}
