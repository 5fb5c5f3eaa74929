// A uniform grid over the floor plan: finds the shelves near a place without looking at all of them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <unordered_map>
#include <utility>
#include <vector>

namespace floorplan {

struct Point {
    double x = 0.0;
    double y = 0.0;
};

inline double squared_distance(Point a, Point b) {
    const double dx = a.x - b.x;
    const double dy = a.y - b.y;
    return dx * dx + dy * dy;
}

template <typename Item>
class SpatialGrid {
public:
    // `cell` is the edge of a cell: about the radius of the usual query, so that nine cells hold the answer.
    explicit SpatialGrid(double cell) : cell_(cell) {
        if (!(cell > 0.0)) {
            throw std::invalid_argument("the edge of a cell must be positive");
        }
    }

    void insert(Point where, Item item) {
        cells_[key(column(where.x), column(where.y))].push_back(Entry{where, std::move(item)});
        ++size_;
    }

    std::size_t size() const noexcept { return size_; }

    // Items at most `radius` away, the nearest first.
    std::vector<std::pair<double, Item>> within(Point centre, double radius) const {
        std::vector<std::pair<double, Item>> found;
        visit_box(centre, radius, [&](const Entry& entry) {
            const double squared = squared_distance(centre, entry.where);
            if (squared <= radius * radius) {
                found.emplace_back(std::sqrt(squared), entry.item);
            }
        });
        std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
        return found;
    }

    // The nearest item, by doubling the radius until something lies in it.
    std::optional<Item> nearest(Point centre, double farthest) const {
        for (double radius = cell_; radius < 2 * farthest; radius *= 2) {
            auto found = within(centre, std::min(radius, farthest));
            if (!found.empty()) {
                return std::move(found.front().second);
            }
        }
        return std::nullopt;
    }

    // Removes every item for which the predicate holds; gives how many there were.
    template <typename Predicate>
    std::size_t erase_if(Predicate predicate) {
        std::size_t erased = 0;
        for (auto cell = cells_.begin(); cell != cells_.end();) {
            auto& entries = cell->second;
            const auto kept = std::remove_if(entries.begin(), entries.end(),
                                             [&](const Entry& entry) { return predicate(entry.item); });
            erased += static_cast<std::size_t>(entries.end() - kept);
            entries.erase(kept, entries.end());
            cell = entries.empty() ? cells_.erase(cell) : std::next(cell);
        }
        size_ -= erased;
        return erased;
    }

private:
    struct Entry {
        Point where;
        Item item;
    };

    std::int32_t column(double coordinate) const {
        return static_cast<std::int32_t>(std::floor(coordinate / cell_));
    }

    static std::uint64_t key(std::int32_t x, std::int32_t y) {
        return static_cast<std::uint64_t>(static_cast<std::uint32_t>(x)) << 32 | static_cast<std::uint32_t>(y);
    }

    template <typename Visitor>
    void visit_box(Point centre, double radius, Visitor visitor) const {
        for (std::int32_t x = column(centre.x - radius); x <= column(centre.x + radius); ++x) {
            for (std::int32_t y = column(centre.y - radius); y <= column(centre.y + radius); ++y) {
                if (const auto cell = cells_.find(key(x, y)); cell != cells_.end()) {
                    std::for_each(cell->second.begin(), cell->second.end(), visitor);
                }
            }
        }
    }

    double cell_;
    std::size_t size_ = 0;
    std::unordered_map<std::uint64_t, std::vector<Entry>> cells_;
};

}  // namespace floorplan
