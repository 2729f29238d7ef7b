"""The types that a skops archive may hold. Fixed: what is not here is refused, whatever it is.

Functions are a handful of numpy's and scikit-learn's own. Left out on purpose are bound methods, operators
and reductions, since loading those calls what the archive names.
"""

from __future__ import annotations

_COMPILED_LOSSES = (
    "CyAbsoluteError CyExponentialLoss CyHalfBinomialLoss CyHalfGammaLoss CyHalfMultinomialLoss "
    "CyHalfPoissonLoss CyHalfSquaredError CyHuberLoss CyPinballLoss"
)
_ESTIMATORS = {
    "sklearn.calibration": (
        "CalibratedClassifierCV _CalibratedClassifier _SigmoidCalibration _TemperatureScaling"
    ),
    "sklearn.compose._column_transformer": "ColumnTransformer _RemainderColsList",
    "sklearn.compose._target": "TransformedTargetRegressor",
    "sklearn.decomposition._pca": "PCA",
    "sklearn.decomposition._truncated_svd": "TruncatedSVD",
    "sklearn.discriminant_analysis": "LinearDiscriminantAnalysis QuadraticDiscriminantAnalysis",
    "sklearn.dummy": "DummyClassifier DummyRegressor",
    "sklearn.ensemble._bagging": "BaggingClassifier BaggingRegressor",
    "sklearn.ensemble._forest": (
        "ExtraTreesClassifier ExtraTreesRegressor RandomForestClassifier RandomForestRegressor"
    ),
    "sklearn.ensemble._gb": "GradientBoostingClassifier GradientBoostingRegressor",
    "sklearn.ensemble._hist_gradient_boosting.binning": "_BinMapper",
    "sklearn.ensemble._hist_gradient_boosting.gradient_boosting": (
        "HistGradientBoostingClassifier HistGradientBoostingRegressor"
    ),
    "sklearn.ensemble._hist_gradient_boosting.predictor": "TreePredictor",
    "sklearn.ensemble._stacking": "StackingClassifier StackingRegressor",
    "sklearn.ensemble._voting": "VotingClassifier VotingRegressor",
    "sklearn.ensemble._weight_boosting": "AdaBoostClassifier AdaBoostRegressor",
    "sklearn.feature_selection._from_model": "SelectFromModel",
    "sklearn.feature_selection._univariate_selection": "SelectKBest SelectPercentile",
    "sklearn.feature_selection._variance_threshold": "VarianceThreshold",
    "sklearn.impute._base": "MissingIndicator SimpleImputer",
    "sklearn.isotonic": "IsotonicRegression",
    "sklearn.kernel_approximation": "Nystroem RBFSampler",
    "sklearn.kernel_ridge": "KernelRidge",
    "sklearn.linear_model._base": "LinearRegression",
    "sklearn.linear_model._bayes": "ARDRegression BayesianRidge",
    "sklearn.linear_model._coordinate_descent": "ElasticNet ElasticNetCV Lasso LassoCV",
    "sklearn.linear_model._glm.glm": "GammaRegressor PoissonRegressor TweedieRegressor",
    "sklearn.linear_model._huber": "HuberRegressor",
    "sklearn.linear_model._logistic": "LogisticRegression LogisticRegressionCV",
    "sklearn.linear_model._quantile": "QuantileRegressor",
    "sklearn.linear_model._ridge": "Ridge RidgeCV RidgeClassifier RidgeClassifierCV",
    "sklearn.linear_model._stochastic_gradient": "SGDClassifier SGDRegressor",
    "sklearn.multiclass": "OneVsOneClassifier OneVsRestClassifier _ConstantPredictor",
    "sklearn.naive_bayes": "BernoulliNB CategoricalNB ComplementNB GaussianNB MultinomialNB",
    "sklearn.neighbors._classification": "KNeighborsClassifier",
    "sklearn.neighbors._regression": "KNeighborsRegressor",
    "sklearn.neural_network._multilayer_perceptron": "MLPClassifier MLPRegressor",
    "sklearn.neural_network._stochastic_optimizers": "AdamOptimizer SGDOptimizer",
    "sklearn.pipeline": "FeatureUnion Pipeline",
    "sklearn.preprocessing._data": (
        "Binarizer MaxAbsScaler MinMaxScaler Normalizer PowerTransformer QuantileTransformer RobustScaler "
        "StandardScaler"
    ),
    "sklearn.preprocessing._discretization": "KBinsDiscretizer",
    "sklearn.preprocessing._encoders": "OneHotEncoder OrdinalEncoder",
    # HistGradientBoosting keeps one. The functions that it may hold are those below.
    "sklearn.preprocessing._function_transformer": "FunctionTransformer",
    "sklearn.preprocessing._label": "LabelBinarizer LabelEncoder",
    "sklearn.preprocessing._polynomial": "PolynomialFeatures SplineTransformer",
    "sklearn.preprocessing._target_encoder": "TargetEncoder",
    "sklearn.svm._classes": "LinearSVC LinearSVR NuSVC NuSVR SVC SVR",
    "sklearn.tree._classes": (
        "DecisionTreeClassifier DecisionTreeRegressor ExtraTreeClassifier ExtraTreeRegressor"
    ),
    "sklearn.tree._tree": "Tree",
    "sklearn.utils._bunch": "Bunch",
    "sklearn._loss.link": "HalfLogitLink IdentityLink Interval LogLink LogitLink MultinomialLogit",
    "sklearn._loss.loss": (
        "AbsoluteError ExponentialLoss HalfBinomialLoss HalfGammaLoss HalfMultinomialLoss HalfPoissonLoss "
        "HalfSquaredError HuberLoss PinballLoss"
    ),
    **dict.fromkeys(("sklearn._loss._loss", "_loss"), _COMPILED_LOSSES),
}
_PLAIN = {
    "builtins": "bool bytes dict float int list set slice str tuple type NoneType",
    "collections": "OrderedDict defaultdict",
    "numpy": (
        "ndarray dtype bool bool_ float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 "
        "str_ object_ intp"
    ),
    "numpy.ma": "MaskedArray",
    "numpy.random.mtrand": "RandomState",
    "numpy.random._generator": "Generator",
    "numpy.random._pcg64": "PCG64",
    "numpy.random._mt19937": "MT19937",
    "scipy.sparse._csr": "csr_matrix csr_array",
    "scipy.sparse._csc": "csc_matrix csc_array",
}
_FUNCTIONS = {
    # HistGradientBoosting keeps its input check as a partial of this function.
    "sklearn.utils.validation": "check_array",
    "functools": "partial",
    "numpy": "exp log log1p expm1 sqrt identity",
    "scipy.special": "expit logit",
}


def _names(*groups: dict[str, str]) -> frozenset[str]:
    return frozenset(
        f"{module}.{name}" for group in groups for module, names in group.items() for name in names.split()
    )


ALLOWED_TYPES = _names(_ESTIMATORS, _PLAIN, _FUNCTIONS)

# What skops calls its kinds of nodes. MethodNode, OperatorFuncNode and ConstructorFromReduceNode are not among them.
ALLOWED_LOADERS = frozenset(
    (
        *(
            "ObjectNode",
            "DictNode",
            "DefaultDictNode",
            "ListNode",
            "TupleNode",
            "SetNode",
            "JsonNode",
            "BytesNode",
        ),
        *(
            "NdArrayNode",
            "MaskedArrayNode",
            "DTypeNode",
            "TypeNode",
            "SliceNode",
            "FunctionNode",
            "PartialNode",
        ),
        *("RandomStateNode", "RandomGeneratorNode", "SparseMatrixNode", "LossNode", "TreeNode"),
    )
)
