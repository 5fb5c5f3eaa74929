-- | Shelf marks such as "QA 76.9 D343 (2)": parsing, printing, and the order in which books stand.
module Shelf
  ( Mark (..)
  , parseMark
  , showMark
  , misplaced
  ) where

import Data.Char (isAlpha, isDigit, isSpace, toUpper)
import Data.List (sortBy)
import Data.Ord (comparing)

-- | A class in letters, a number with decimals kept as digits, cutters, and a copy.
data Mark = Mark
  { markClass :: String
  , markNumber :: Int
  , markDecimals :: String
  , markCutters :: [(Char, String)]
  , markCopy :: Int
  }
  deriving (Eq, Show)

-- | Digits behind the point and in cutters are decimals: D343 stands before D35.
instance Ord Mark where
  compare = comparing key
    where
      key mark = (markClass mark, markNumber mark, markDecimals mark, markCutters mark, markCopy mark)

-- | A parser takes the text that is left and gives a value with the rest, or a reason why not.
newtype Parser a = Parser {runParser :: String -> Either String (a, String)}

instance Functor Parser where
  fmap f (Parser p) = Parser $ \text -> do
    (value, rest) <- p text
    pure (f value, rest)

instance Applicative Parser where
  pure value = Parser $ \text -> Right (value, text)
  Parser pf <*> Parser pa = Parser $ \text -> do
    (f, rest) <- pf text
    (value, rest') <- pa rest
    pure (f value, rest')

instance Monad Parser where
  Parser p >>= f = Parser $ \text -> do
    (value, rest) <- p text
    runParser (f value) rest

failWith :: String -> Parser a
failWith reason = Parser $ \text -> Left (reason ++ " at " ++ show (take 10 text))

spaces :: Parser ()
spaces = Parser $ \text -> Right ((), dropWhile isSpace text)

many1 :: String -> (Char -> Bool) -> Parser String
many1 what wanted = Parser $ \text -> case span wanted text of
  ([], _) -> Left ("expected " ++ what ++ " at " ++ show (take 10 text))
  found -> Right found

peek :: Parser (Maybe Char)
peek = Parser $ \text -> Right (case text of c : _ -> Just c; [] -> Nothing, text)

skip :: Parser ()
skip = Parser $ \text -> Right ((), drop 1 text)

decimals :: Parser String
decimals = do
  next <- peek
  if next == Just '.'
    then skip >> many1 "decimals" isDigit
    else pure ""

cutters :: Parser [(Char, String)]
cutters = do
  spaces
  next <- peek
  case next of
    Just '.' -> skip >> cutters
    Just letter | isAlpha letter -> do
      skip
      digits <- many1 "a cutter's digits" isDigit
      rest <- cutters
      pure ((toUpper letter, digits) : rest)
    _ -> pure []

copy :: Parser Int
copy = do
  spaces
  next <- peek
  case next of
    Just '(' -> do
      skip
      number <- read <$> many1 "a copy's number" isDigit
      closing <- peek
      if closing == Just ')' then skip >> pure number else failWith "expected )"
    _ -> pure 1

mark :: Parser Mark
mark = do
  spaces
  letters <- map toUpper <$> many1 "a class" isAlpha
  spaces
  number <- read <$> many1 "a number" isDigit
  Mark letters number <$> decimals <*> cutters <*> copy

-- | Parse a whole mark; what is left over is an error.
parseMark :: String -> Either String Mark
parseMark text = do
  (found, rest) <- runParser (mark <* spaces) text
  if null rest then Right found else Left ("left over: " ++ show rest)

showMark :: Mark -> String
showMark (Mark letters number digits cuts number') =
  unwords $ [letters, show number ++ point] ++ [c : ds | (c, ds) <- cuts] ++ ["(" ++ show number' ++ ")" | number' > 1]
  where
    point = if null digits then "" else '.' : digits

-- | Books of a shelf that do not stand where they should, with the place where each belongs.
misplaced :: [Mark] -> [(Mark, Int)]
misplaced shelf =
  [ (book, place)
  | (place, (here, book)) <- zip [0 ..] (sortBy (comparing snd) (zip [0 :: Int ..] shelf))
  , here /= place
  ]
