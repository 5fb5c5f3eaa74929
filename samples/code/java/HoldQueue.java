package library.lending;

import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.PriorityQueue;

/**
 * Decides who gets a returned book next.
 *
 * <p>Holds are served in the order in which they were placed, but a reader who needs a large-print or braille edition
 * comes first for those, and a reader who let two books lie at the desk waits behind everyone else.
 */
public final class HoldQueue {
    private static final int FORGIVEN = 2;

    /** A reader's wish for a title, in any edition or in one. */
    public record Hold(String reader, String title, Optional<String> edition, Instant placed) {
        public Hold {
            Objects.requireNonNull(reader);
            Objects.requireNonNull(title);
            Objects.requireNonNull(edition);
            Objects.requireNonNull(placed);
        }

        boolean accepts(Copy copy) {
            return title.equals(copy.title()) && edition.map(copy.edition()::equals).orElse(true);
        }
    }

    /** A book on the returns trolley. */
    public record Copy(String barcode, String title, String edition) {}

    /** A book that waits at the desk, until when, and for whom. */
    public record Offer(Copy copy, Hold hold, Instant until) {}

    private final Map<String, List<Hold>> waiting = new HashMap<>();
    private final Map<String, Integer> neglected = new HashMap<>();
    private final PriorityQueue<Offer> offers = new PriorityQueue<>(Comparator.comparing(Offer::until));
    private final Duration patience;

    public HoldQueue(Duration patience) {
        if (patience.isNegative() || patience.isZero()) {
            throw new IllegalArgumentException("a book must wait at the desk for some time, not " + patience);
        }
        this.patience = patience;
    }

    /** Places a hold. A second one of the same reader for the same title replaces the first and keeps its place. */
    public synchronized void place(Hold hold) {
        List<Hold> queue = waiting.computeIfAbsent(hold.title(), title -> new ArrayList<>());
        for (int position = 0; position < queue.size(); position++) {
            Hold earlier = queue.get(position);
            if (earlier.reader().equals(hold.reader())) {
                queue.set(position, new Hold(hold.reader(), hold.title(), hold.edition(), earlier.placed()));
                return;
            }
        }
        queue.add(hold);
    }

    /** Finds the reader for a returned copy, who then has until the offer ends to fetch it. */
    public synchronized Optional<Offer> returned(Copy copy, Instant now) {
        List<Hold> queue = waiting.getOrDefault(copy.title(), List.of());
        Optional<Hold> chosen = queue.stream().filter(hold -> hold.accepts(copy)).min(order(copy));
        return chosen.map(hold -> {
            queue.remove(hold);
            Offer offer = new Offer(copy, hold, now.plus(patience));
            offers.add(offer);
            return offer;
        });
    }

    /** Notes that a reader fetched a copy; true if it was waiting for them. */
    public synchronized boolean fetched(String barcode, String reader) {
        return offers.removeIf(
                offer -> offer.copy().barcode().equals(barcode) && offer.hold().reader().equals(reader));
    }

    /** Takes back what nobody fetched in time and offers it to the next reader. */
    public synchronized List<Offer> expire(Instant now) {
        List<Offer> passedOn = new ArrayList<>();
        while (!offers.isEmpty() && offers.peek().until().isBefore(now)) {
            Offer late = offers.remove();
            neglected.merge(late.hold().reader(), 1, Integer::sum);
            returned(late.copy(), now).ifPresent(passedOn::add);
        }
        return passedOn;
    }

    /** The place of a reader in the queue for a title, from 1; 0 if they are not in it. */
    public synchronized int position(String reader, String title) {
        List<Hold> queue = waiting.getOrDefault(title, List.of());
        for (int position = 0; position < queue.size(); position++) {
            if (queue.get(position).reader().equals(reader)) {
                return position + 1;
            }
        }
        return 0;
    }

    private Comparator<Hold> order(Copy copy) {
        Comparator<Hold> unreliableLast =
                Comparator.comparing(hold -> neglected.getOrDefault(hold.reader(), 0) >= FORGIVEN);
        Comparator<Hold> editionFirst = Comparator.comparing(
                hold -> hold.edition().filter(copy.edition()::equals).isPresent() ? 0 : 1);
        return unreliableLast.thenComparing(editionFirst).thenComparing(Hold::placed).thenComparing(Hold::reader);
    }
}
