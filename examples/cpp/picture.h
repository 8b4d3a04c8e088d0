// Pictures for the two programs beside this: reading a PPM, and the letterbox. A program with OpenCV needs neither.
#pragma once
#include <algorithm>
#include <cstdint>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

struct Picture {
    int width = 0, height = 0;
    std::vector<uint8_t> rgb;
    uint8_t& at(int x, int y, int channel) { return rgb[3 * (size_t(y) * width + x) + channel]; }
    float at(int x, int y, int channel) const { return rgb[3 * (size_t(y) * width + x) + channel]; }
};

inline Picture read_ppm(const char* path) {  // binary, 8 bits, without comments
    std::ifstream file(path, std::ios::binary);
    std::string kind;
    Picture picture;
    int most = 0;
    file >> kind >> picture.width >> picture.height >> most;
    if (!file || kind != "P6" || most != 255 || picture.width < 1 || picture.height < 1)
        throw std::runtime_error(std::string(path) + ": is no binary PPM of 8 bits");
    file.get();
    picture.rgb.resize(size_t(3) * picture.width * picture.height);
    if (!file.read(reinterpret_cast<char*>(picture.rgb.data()), picture.rgb.size()))
        throw std::runtime_error(std::string(path) + ": is cut short");
    return picture;
}

// Resized (bilinear) to fit into width x height, in the top left corner, black around it. scale: of its pixels.
inline Picture letterbox(const Picture& picture, int width, int height, float& scale) {
    bool tall = int64_t(picture.height) * width > int64_t(height) * picture.width;
    int across = tall ? std::max<int64_t>(1, int64_t(picture.width) * height / picture.height) : width;
    int down = tall ? height : std::max<int64_t>(1, int64_t(picture.height) * width / picture.width);
    scale = float(down) / picture.height;
    Picture canvas{width, height, std::vector<uint8_t>(size_t(3) * width * height)};
    for (int y = 0; y < down; y++) {
        float v = std::clamp((y + .5f) * picture.height / down - .5f, 0.f, picture.height - 1.f);
        int top = int(v), low = std::min(top + 1, picture.height - 1);
        for (int x = 0; x < across; x++) {
            float u = std::clamp((x + .5f) * picture.width / across - .5f, 0.f, picture.width - 1.f);
            int left = int(u), right = std::min(left + 1, picture.width - 1);
            for (int c = 0; c < 3; c++) {
                auto row = [&](int j) {
                    return picture.at(left, j, c) + (u - left) * (picture.at(right, j, c) - picture.at(left, j, c));
                };
                float upper = row(top), lower = row(low);
                canvas.at(x, y, c) = uint8_t(upper + (v - top) * (lower - upper) + .5f);
            }
        }
    }
    return canvas;
}
